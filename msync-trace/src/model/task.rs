//! Who: processes and threads.

/// A process, told apart from a later one that got the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Thread group id in the initial pid namespace: what user space calls the pid.
    pub pid: u32,
    /// Start of the thread group's leader, `CLOCK_MONOTONIC` ns (`task_struct.start_time`);
    /// 0 where it could not be read.
    pub start_time: u64,
}

/// A thread at the time of a fact.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Its process.
    pub process: ProcessId,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Thread name (`task_struct.comm`), as the kernel has it: up to 15 bytes, any bytes but NUL.
    pub comm: Vec<u8>,
    /// Id of its cgroup (v2), which is the inode number of the cgroup's directory; 0 if unknown.
    pub cgroup: u64,
    /// Whether it is a kernel thread (`PF_KTHREAD`): a write-back worker, nfsd ...
    pub kernel_thread: bool,
}
