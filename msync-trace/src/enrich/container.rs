//! The container and the pod that a cgroup belongs to.

use crate::schema::{Container, Name};

/// What stands before the id in the name of a cgroup (systemd cgroup driver), and who wrote it.
const PREFIXES: [(&str, &str); 6] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
];

/// What stands between slice and id where the runtime does not know systemd's names
/// (`SLICE:cri-containerd:ID`), and who wrote it.
const MARKS: [(&str, &str); 3] = [
    (":cri-containerd:", "containerd"),
    (":crio:", "cri-o"),
    (":docker:", "docker"),
];

/// Parents of a bare id (cgroupfs driver), and who wrote it.
const PARENTS: [(&str, &str); 3] = [
    ("docker", "docker"),
    ("k8s.io", "containerd"),
    ("libpod_parent", "podman"),
];

/// The container of a cgroup path: the innermost component that is a 64-digit hexadecimal id,
/// bare or as `PREFIX-ID.scope`. Kubernetes with the cgroupfs driver writes bare ids, without the
/// runtime. A monitor beside a container (`crio-conmon-ID.scope`) is not in it. The pod is the
/// innermost one around that: kubelets run in containers too (kind, minikube).
pub(super) fn of_cgroup(path: &Name) -> Option<Container> {
    let path = path.lossy();
    let mut components: Vec<&str> = path.split('/').collect();
    while let Some(component) = components.pop() {
        let (id, runtime) = split(component, components.last());
        if id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
            let around = components.iter().rev();
            return Some(Container {
                id: id.to_owned(),
                runtime: runtime.map(ToOwned::to_owned),
                pod_uid: pod_uid(component).or_else(|| around.copied().find_map(pod_uid)),
            });
        }
    }
    None
}

/// What may be an id, and whose.
fn split<'a>(component: &'a str, parent: Option<&&str>) -> (&'a str, Option<&'static str>) {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let prefixed = |(prefix, runtime): &(&str, &'static str)| {
        Some((name.strip_prefix(prefix)?, Some(*runtime)))
    };
    let marked =
        |(mark, runtime): &(&str, &'static str)| Some((name.rsplit_once(mark)?.1, Some(*runtime)));
    PREFIXES
        .iter()
        .find_map(prefixed)
        .or_else(|| MARKS.iter().find_map(marked))
        .unwrap_or((name, bare_id_runtime(parent)))
}

fn bare_id_runtime(parent: Option<&&str>) -> Option<&'static str> {
    let parent = parent?;
    PARENTS
        .iter()
        .find(|(name, _)| name == parent)
        .map(|(_, runtime)| *runtime)
}

/// The uid in the name of a pod's cgroup: `podUID`, `kubepods-burstable-podUID.slice` with `_` for
/// `-`, perhaps with `:cri-containerd:ID` behind. That of a static pod is a hash without `-`.
fn pod_uid(component: &str) -> Option<String> {
    let slice = component
        .split_once(':')
        .map_or(component, |(slice, _)| slice);
    let name = match slice.strip_suffix(".slice") {
        // In a slice's name `-` separates its parents.
        Some(slice) => slice.rsplit('-').next()?,
        None => slice,
    };
    let uid = name.strip_prefix("pod")?.replace('_', "-");
    is_uid(&uid).then_some(uid)
}

fn is_uid(text: &str) -> bool {
    let dashes = |places: &[usize]| {
        text.bytes().enumerate().all(|(at, byte)| match byte {
            b'-' => places.contains(&at),
            _ => byte.is_ascii_hexdigit() && !places.contains(&at),
        })
    };
    match text.len() {
        36 => dashes(&[8, 13, 18, 23]),
        32 => dashes(&[]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e1a5cbb0e4b0f8c1de7f3c9a1b2d3e4f5061728394a5b6c7d8e9f00112233";
    const OUTER: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";
    const UID: &str = "8dbc9d4b-3dfd-4e54-b07a-9a1f3b0a2c11";
    const HASH: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";

    fn found(path: &str) -> Option<(String, Option<String>, Option<String>)> {
        let path = path
            .replace("ID", ID)
            .replace("OUTER", OUTER)
            .replace("U-U", UID)
            .replace("U_U", &UID.replace('-', "_"))
            .replace("HASH", HASH);
        of_cgroup(&Name::from(path.as_str()))
            .map(|container| (container.id, container.runtime, container.pod_uid))
    }

    fn check(path: &str, runtime: Option<&str>, pod: Option<&str>) {
        let owned = |text: &str| text.to_owned();
        let expected = (ID.to_owned(), runtime.map(owned), pod.map(owned));
        assert_eq!(found(path), Some(expected), "{path}");
    }

    #[test]
    fn each_runtime_is_recognised_by_the_cgroup_it_makes() {
        for (path, runtime) in [
            ("/system.slice/docker-ID.scope", Some("docker")),
            ("/system.slice/docker-ID.scope/init.scope", Some("docker")),
            ("/docker/ID", Some("docker")),
            ("/docker/ID/nested.slice", Some("docker")),
            ("/../../docker/ID", Some("docker")),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
                Some("docker"),
            ),
            ("/system.slice/nerdctl-ID.scope", Some("containerd")),
            ("/k8s.io/ID", Some("containerd")),
            ("/machine.slice/libpod-ID.scope/container", Some("podman")),
            (
                "/machine.slice/machine-libpod_pod_OUTER.slice/libpod-ID.scope",
                Some("podman"),
            ),
            ("/libpod_parent/libpod-ID", Some("podman")),
            ("/libpod_parent/ID", Some("podman")),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
                Some("podman"),
            ),
            (
                "/system.slice/web.service/libpod-payload-ID",
                Some("podman"),
            ),
            ("/ecs/0123456789abcdef0123456789abcdef/ID", None),
        ] {
            check(path, runtime, None);
        }
    }

    #[test]
    fn a_container_of_kubernetes_names_its_pod() {
        for (path, runtime) in [
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_U.slice/cri-containerd-ID.scope",
                Some("containerd"),
            ),
            (
                "/kubepods.slice/kubepods-podU_U.slice/crio-ID.scope/container",
                Some("cri-o"),
            ),
            ("/kubepods/besteffort/podU-U/crio-ID", Some("cri-o")),
            ("/kubepods/burstable/podU-U/ID", None),
            ("/kubepods/podU-U/ID/inner", None),
            (
                "/system.slice/containerd.service/kubepods-burstable-podU_U.slice:cri-containerd:ID",
                Some("containerd"),
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_U.slice/docker-ID.scope",
                Some("docker"),
            ),
            // As a container that shares the namespace of another one sees it.
            (
                "/../../kubepods-podU_U.slice/cri-containerd-ID.scope",
                Some("containerd"),
            ),
        ] {
            check(path, runtime, Some(UID));
        }
    }

    #[test]
    fn a_static_pod_has_a_hash_for_a_uid() {
        check(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice/cri-containerd-ID.scope",
            Some("containerd"),
            Some(HASH),
        );
    }

    #[test]
    fn where_nodes_are_containers_the_innermost_one_counts() {
        for (path, runtime) in [
            ("/docker/OUTER/kubelet/kubepods/burstable/podU-U/ID", None),
            (
                "/system.slice/docker-OUTER.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podU_U.slice/cri-containerd-ID.scope",
                Some("containerd"),
            ),
            (
                "/machine.slice/libpod-OUTER.scope/container/kubepods.slice/kubepods-podU_U.slice/crio-ID.scope",
                Some("cri-o"),
            ),
        ] {
            check(path, runtime, Some(UID));
        }
        check(
            "/docker/ID/system.slice/containerd.service",
            Some("docker"),
            None,
        );
        // Docker in a pod: the pod is that of the container around it.
        check(
            "/kubepods.slice/kubepods-podU_U.slice/cri-containerd-OUTER.scope/docker/ID",
            Some("docker"),
            Some(UID),
        );
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "/",
            "/user.slice/user-1000.slice/session-2.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/kubepods-podU_U.slice/crio-conmon-ID.scope",
            "/system.slice/docker.service",
            "/docker/IDff",
            "/docker/3f4e1a5cbb0e",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn what_looks_like_a_pod_and_is_none_is_left_out() {
        check("/podcast/ID", None, None);
        check("/pod12/ID", None, None);
        check("/pod8dbc9d4b-3dfd-4e54-b07a-9a1f3b0a2c1-/ID", None, None);
    }
}
