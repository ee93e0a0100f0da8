//! The embedded datastore on a file system that is full or read-only.

use weir_tests::{Answer, Call, Cluster, Families, Place, host_interface};

const DIRECTORY: &str = "/var/lib/weir";
/// How many containers a full disk has to let go: more than fit into the log's place at once.
const CONTAINERS: usize = 60;

/// A node whose embedded datastore is on a file system of its own.
fn on(file_system: &str) -> Cluster {
    let cluster = Cluster::embedded();
    let make = match file_system {
        "tmpfs" => format!("mount -t tmpfs -o size=8m tmpfs {DIRECTORY}"),
        // xfs is not made smaller.
        kind => format!(
            "truncate -s 301M /run/disk; mkfs.{kind} -q /run/disk; mount -o loop /run/disk {DIRECTORY}"
        ),
    };
    cluster.node.run(&["mkdir", "-p", DIRECTORY]);
    cluster.node.run(&["sh", "-ec", &make]);
    cluster.with_pools(Families::V4)
}

fn status(cluster: &Cluster, call: &Call) -> Answer {
    call.clone().configure("/cniVersion", "1.1.0".into()).run(&cluster.node, "STATUS")
}

fn fill(cluster: &Cluster) {
    // The second one takes what the first one's last block was too large for.
    let fill = format!(
        "cd {DIRECTORY}; dd if=/dev/zero of=filler bs=64k 2>/dev/null || true; \
         dd if=/dev/zero of=filler2 bs=512 2>/dev/null || true; sync -f ."
    );
    cluster.node.run(&["sh", "-c", &fill]);
}

fn full_disk_lets_containers_go(file_system: &str) {
    let cluster = on(file_system);
    let calls: Vec<Call> =
        (0..CONTAINERS).map(|n| cluster.ipam(Families::V4, &format!("c{n}"))).collect();
    for call in &calls {
        call.add(&cluster.node);
    }
    fill(&cluster);
    let late = cluster.ipam(Families::V4, "late");
    let words = ["the file system of /var/lib/weir is full", "free space"];
    status(&cluster, &late).failure().expect(50, &words);
    late.run(&cluster.node, "ADD").failure().expect(11, &words);
    for call in &calls {
        call.delete(&cluster.node);
    }
    late.delete(&cluster.node);
    assert_eq!(weir_tests::allocations(&cluster.store.entries()).len(), 0);
    cluster.node.run(&["sh", "-c", &format!("rm {DIRECTORY}/filler*")]);
    status(&cluster, &late).silence();
    late.add(&cluster.node);
}

#[test]
fn a_full_tmpfs_lets_containers_go() {
    full_disk_lets_containers_go("tmpfs");
}

#[test]
fn a_full_ext4_lets_containers_go() {
    full_disk_lets_containers_go("ext4");
}

#[test]
fn a_full_xfs_lets_containers_go() {
    full_disk_lets_containers_go("xfs");
}

fn remount(cluster: &Cluster, option: &str) {
    cluster.node.run(&["mount", "-o", &format!("remount,{option}"), DIRECTORY]);
}

fn has_link(cluster: &Cluster, link: &str) -> bool {
    cluster.node.succeeds(&["ip", "link", "show", "dev", link])
}

#[test]
fn a_read_only_disk_is_told_and_del_is_tried_again() {
    let cluster = on("tmpfs");
    let web = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &web);
    let result = call.add(&cluster.node);
    let link = host_interface(&result);
    assert!(has_link(&cluster, link));
    remount(&cluster, "ro");
    let words = ["the file system of /var/lib/weir is mounted read-only", "mount it writable"];
    status(&cluster, &call).failure().expect(50, &words);
    let late = cluster.ipam(Families::V4, "late");
    late.run(&cluster.node, "ADD").failure().expect(11, &words);
    call.run(&cluster.node, "DEL").failure().expect(11, &words);
    assert!(!has_link(&cluster, link), "it is torn down all the same");
    remount(&cluster, "rw");
    call.delete(&cluster.node);
    assert_eq!(weir_tests::allocations(&cluster.store.entries()).len(), 0);
    late.add(&cluster.node);
}

/// Nothing is there yet: no directory, no file.
#[test]
fn a_disk_that_is_full_or_read_only_from_the_beginning_is_told() {
    let cluster = Cluster::embedded();
    let make = format!("mkdir -p {DIRECTORY}; mount -t tmpfs -o size=64k,ro tmpfs {DIRECTORY}");
    cluster.node.run(&["sh", "-ec", &make]);
    let call = cluster.ipam(Families::V4, "first");
    // Plugins make no datastore; who makes it is told.
    let words = ["/var/lib/weir/weir.db", "where there is none"];
    status(&cluster, &call).failure().expect(50, &words);
    call.run(&cluster.node, "ADD").failure().expect(101, &words);
    let told = |words: &str| {
        let made = cluster.weirctl(&["init"]);
        assert!(!made.succeeded && made.stderr.contains(words), "{made:?}");
    };
    told("the file system of /var/lib/weir is mounted read-only");
    remount(&cluster, "rw");
    fill(&cluster);
    told("the file system of /var/lib/weir is full");
}
