//! A machine of a test's own: mounts, network and processes that end with it.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::succeed;

/// Says that the process is inside.
const INSIDE: &str = "COUNTERSIGN_E2E_MACHINE";

/// The node, and its API server.
pub const NODE: &str = "192.0.2.1";
/// The site's DNS server.
pub const DNS: &str = "192.0.2.2";
/// The bootstrap machine's registry.
pub const BOOTSTRAP: &str = "192.0.2.11";
/// The cluster's own registry.
pub const CLUSTER: &str = "192.0.2.12";
/// Whoever plays the rest of the world.
pub const UPSTREAM: &str = "192.0.2.99";

/// Files that a kubelet or a kube-proxy writes into, and that are the whole machine's.
const SYSCTLS: [(&str, &str); 8] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
    ("net/netfilter/nf_conntrack_max", "1048576"),
    ("fs/inotify/max_user_instances", "8192"),
];

static TURN: Mutex<()> = Mutex::new(());

/// Runs the test of this name again on a machine of its own, and says whether this is there.
///
/// Whatever it has started ends with it; nothing of it is left but the cgroups, which are removed.
pub fn on_a_machine_of_its_own(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        set_up();
        return true;
    }
    // A kubelet takes what it does not know out of the cgroups, which all machines share.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "--net", "--pid", "--fork", "--mount-proc"]);
    command.arg("--kill-child").arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let status = command.status().expect("unshare, of util-linux");
    remove_cgroups();
    assert!(status.success(), "the test on the machine failed: {status}");
    false
}

fn set_up() {
    let sysctls = SYSCTLS.iter().map(|(name, value)| {
        format!("if [ -e /proc/sys/{name} ]; then mkdir -p $(dirname /run/sys/{name}); echo {value} > /run/sys/{name}; mount --bind /run/sys/{name} /proc/sys/{name}; fi\n")
    });
    let addresses = [NODE, DNS, BOOTSTRAP, CLUSTER, UPSTREAM];
    let addresses = addresses.iter().map(|address| format!("ip address add {address}/32 dev lo\n"));
    let script = format!(
        "mount -t tmpfs tmpfs /run\n\
         mkdir -p /run/etc/upper /run/etc/work\n\
         mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work /etc\n\
         for each in /var/lib /var/log /opt; do mount -t tmpfs tmpfs $each; done\n\
         {}ip link set lo up\n{}ip route add 10.96.0.0/16 dev lo\n\
         echo 1 > /proc/sys/net/ipv4/ip_forward\n",
        sysctls.collect::<String>(),
        addresses.collect::<String>()
    );
    succeed(Command::new("sh").args(["-euc", &script]));
    let resolver = format!("nameserver {DNS}\noptions timeout:1 attempts:1\n");
    std::fs::remove_file("/etc/resolv.conf").ok();
    std::fs::write("/etc/resolv.conf", resolver).unwrap();
}

/// What a kubelet leaves behind once nothing runs in it any more.
fn remove_cgroups() {
    let script = "find /sys/fs/cgroup -depth -type d -path '*kubepods*' -exec rmdir {} + 2>/dev/null";
    if Path::new("/sys/fs/cgroup").exists() {
        _ = Command::new("sh").args(["-c", script]).status();
    }
}
