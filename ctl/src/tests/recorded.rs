//! What calicoctl printed over the recorded stores is printed alike.

use super::*;

#[tokio::test]
async fn recorded_output_is_printed_alike() {
    let mut count = 0;
    for case in ["small", "seed", "busy"] {
        let memory = recorded_store(case);
        let directory = path_in_tree(&format!("tests/fixtures/calico-3.31/{case}/calicoctl"));
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let recorded = std::fs::read_to_string(&path).unwrap();
            let (command, expected) = recorded.split_once('\n').unwrap();
            let line = command.strip_prefix("$ calicoctl ").unwrap();
            // Belongs to Kubernetes; `weirctl ipam check` is another command.
            if line.starts_with("ipam check") {
                continue;
            }
            let answer = call(&memory, line).await;
            assert_eq!(masked(&answer.output), masked(expected), "{}", path.display());
            assert_eq!(answer.exit, 0, "{}", path.display());
            count += 1;
        }
    }
    assert_eq!(count, 3 * 13, "files with recorded output");
}

#[tokio::test]
async fn looking_changes_nothing() {
    let memory = recorded_store("busy");
    let before = memory.dump();
    for line in ["get ippool", "ipam show --show-blocks", "get node -o wide", "get ipamconfig"] {
        assert_eq!(call(&memory, line).await.exit, 0, "{line}");
    }
    assert_eq!(memory.dump(), before);
}

#[tokio::test]
async fn addresses_are_looked_up() {
    let memory = recorded_store("busy");
    let answer = call(&memory, "ipam show --ip=10.10.0.1").await;
    assert_eq!(
        answer.output,
        "IP 10.10.0.1 is in use\nHandle ID: pods.k8s1\nAttributes:\n  namespace: shop\n  node: n3\n  \
         pod: cart-7d9f\n  timestamp: 2026-11-23 03:40:21.67953329 +0000 UTC\n"
    );
    for address in ["10.7.0.9", "10.99.0.1", "fd00:7::1"] {
        let answer = call(&memory, &format!("ipam show --ip={address}")).await;
        assert_eq!((answer.exit, answer.output), (0, format!("{address} is not assigned\n")));
    }
    let answer = call(&memory, "ipam show --ip=10.7").await;
    assert_eq!(answer.exit, 1);
    assert!(answer.output.contains("'10.7' is not an IP address"), "{}", answer.output);
}

#[tokio::test]
async fn further_formats() {
    let memory = recorded_store("busy");
    let answer = call(&memory, "get reservations -o wide").await;
    assert_eq!(
        answer.output,
        "NAME        CIDRS                                \n\
         kept-back   10.7.0.4/31,10.8.0.0/30,fd00:7::/126   \n\n"
            .replace(
                "CIDRS                                ",
                "CIDRS                                  "
            )
    );
    let answer = call(&memory, "get ipp blue edge -o name").await;
    assert_eq!(answer.output, "ippool/blue\nippool/edge\n");
    let answer = call(&memory, "get ipp 10.8.0.0/24 -o name").await;
    assert_eq!(answer.output, "ippool/edge\n");
    let answer = call(&memory, "get ipp blue --export -o json").await;
    assert!(answer.output.contains("\"name\": \"blue\"\n"), "{}", answer.output);
    let answer = call(&memory, "get ipamconfig").await;
    assert_eq!(
        answer.output,
        "NAME      STRICTAFFINITY   AUTOALLOCATEBLOCKS   \n\
         default   false            true                 \n\n"
    );
    let answer = call(&memory, "get ipp -o table").await;
    assert!(answer.output.contains("unrecognized output format 'table'"), "{}", answer.output);
    let answer = call(&memory, "get ipp -o custom-columns=NAME,COLOUR").await;
    assert!(answer.output.contains("unknown column 'COLOUR'; write some of NAME,CIDR"));
}
