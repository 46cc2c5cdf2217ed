//! The container that a cgroup belongs to.

use crate::schema::{Container, Name};

/// What stands before the id in the name of a cgroup (systemd cgroup driver), and who wrote it.
const PREFIXES: [(&str, &str); 4] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
];

/// Parents of a bare id (cgroupfs driver), and who wrote it.
const PARENTS: [(&str, &str); 2] = [("docker", "docker"), ("libpod_parent", "podman")];

/// The container of a cgroup path: the innermost component that is a 64-digit hexadecimal id,
/// bare or as `PREFIX-ID.scope`. Kubernetes with the cgroupfs driver writes bare ids, without the
/// runtime. A monitor beside a container (`crio-conmon-ID.scope`) is not in it.
pub(super) fn of_cgroup(path: &Name) -> Option<Container> {
    let path = path.lossy();
    let mut components: Vec<&str> = path.split('/').collect();
    while let Some(component) = components.pop() {
        let name = component.strip_suffix(".scope").unwrap_or(component);
        let (id, runtime) = PREFIXES
            .iter()
            .find_map(|(prefix, runtime)| Some((name.strip_prefix(prefix)?, Some(*runtime))))
            .unwrap_or((name, bare_id_runtime(components.last())));
        // containerd without systemd: `kubepods-burstable-podX.slice:cri-containerd:ID`.
        let (id, runtime) = match id.rsplit_once(":cri-containerd:") {
            Some((_, id)) => (id, Some("containerd")),
            None => (id, runtime),
        };
        if id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Some(Container {
                id: id.to_owned(),
                runtime: runtime.map(ToOwned::to_owned),
            });
        }
    }
    None
}

fn bare_id_runtime(parent: Option<&&str>) -> Option<&'static str> {
    let parent = parent?;
    PARENTS
        .iter()
        .find(|(name, _)| name == parent)
        .map(|(_, runtime)| *runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e1a5cbb0e4b0f8c1de7f3c9a1b2d3e4f5061728394a5b6c7d8e9f00112233";

    fn found(path: &str) -> Option<(String, Option<String>)> {
        of_cgroup(&Name::from(path.replace("ID", ID).as_str()))
            .map(|container| (container.id, container.runtime))
    }

    #[test]
    fn each_runtime_is_recognised_by_the_cgroup_it_makes() {
        for (path, runtime) in [
            ("/system.slice/docker-ID.scope", Some("docker")),
            ("/docker/ID", Some("docker")),
            ("/docker/ID/nested.slice", Some("docker")),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-ID.scope",
                Some("containerd"),
            ),
            (
                "/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:ID",
                Some("containerd"),
            ),
            (
                "/kubepods.slice/kubepods-pod1.slice/crio-ID.scope",
                Some("cri-o"),
            ),
            ("/machine.slice/libpod-ID.scope/container", Some("podman")),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
                Some("podman"),
            ),
            ("/kubepods/burstable/pod1/ID", None),
        ] {
            assert_eq!(
                found(path),
                Some((ID.to_owned(), runtime.map(ToOwned::to_owned))),
                "{path}"
            );
        }
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "/",
            "/user.slice/user-1000.slice/session-2.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/system.slice/docker.service",
            "/docker/IDff",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
