//! Command lines: what is understood, and where errors lead.

use super::{Session, done, refused};

pub const SESSIONS: &[Session] = &[
    Session {
        name: "get shows what there is",
        steps: &[refused(
            "get ipp blue nope blue -o name",
            "",
            &["ippool/blue\nippool/blue\n", "resource does not exist: IPPool(nope)"],
        )],
    },
    Session {
        name: "a slip keeps the other words",
        steps: &[
            refused("get -yaml ipp", "", &["Write: weirctl get ipp -o yaml\n"]),
            refused("get ipp -yaml blue", "", &["Write: weirctl get ipp blue -o yaml\n"]),
            done("get ipp blue -o yaml", "", &["name: blue"]),
        ],
    },
    Session {
        name: "what the hint of a JSON patch says can be typed",
        steps: &[
            refused(
                "patch ippool blue -t json -p '{}'",
                "",
                &["for example [{\"op\": \"add\", \"path\": \"/spec/disabled\", \"value\": true}]"],
            ),
            done(
                "patch ippool blue -t json \
                 -p '[{\"op\": \"add\", \"path\": \"/spec/disabled\", \"value\": true}]'",
                "",
                &["Successfully patched 1"],
            ),
        ],
    },
    Session {
        name: "calicoctl's flags can be typed",
        steps: &[
            done("--allow-version-mismatch get ipp -o name", "", &["ippool/blue"]),
            done("get ipp -o name --allow-version-mismatch --context=x", "", &["ippool/blue"]),
            refused("get ipp -n default", "", &["are not namespaced; leave --namespace out"]),
            refused("get ipp -A", "", &["are not namespaced; leave --all-namespaces out"]),
            done("get ipp blue -o yml", "", &["name: blue"]),
            refused(
                "get ipp -o go-template={{.}}",
                "",
                &["templates of Go are not supported", "-o custom-columns=NAME,CIDR,NAT"],
            ),
            done("ipam check -o report.json", "", &["found 0 problems"]),
            done("ipam check --show-all-ips --show-problem-ips", "", &["ALLOCATED-TO"]),
            done("ipam release --from-report=report.json --force", "", &["No addresses"]),
            refused("ipam check -o report", "", &["./report"]),
            done("ipam configure --strictaffinity=True", "", &["StrictAffinity to: true"]),
            done("ipam configure --strictaffinity=0", "", &["StrictAffinity to: false"]),
            refused("ipam configure --strictaffinity=si", "", &["write true or false"]),
        ],
    },
    Session {
        name: "errors name the next command",
        steps: &[
            refused("get ippoool", "", &["'ippoool' is not supported", "weirctl get ippool"]),
            refused(
                "get ipp -o custom-columns=COLOUR",
                "",
                &["unknown column 'COLOUR'", "weirctl get ippool -o custom-columns=NAME,"],
            ),
            refused("get ipp -o table", "", &["weirctl get ippool -o wide"]),
            refused("label node n1 zone", "", &["weirctl label node n1 zone=a"]),
            refused("delete ippool ''", "", &["weirctl get ippool -o name"]),
            refused("ipam frobnicate", "", &["Usage: weirctl ipam", "weirctl ipam --help\n"]),
            refused("ipam show --ip", "", &["weirctl ipam show --help\n"]),
            refused(
                "create -f -",
                "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n, labels: 5}}",
                &["Metadata.Labels = '5'", "weirctl validate -f FILE"],
            ),
        ],
    },
    Session {
        name: "a wrong value in a v1 document stops that document only",
        steps: &[refused(
            "create -f -",
            "- {apiVersion: v1, kind: ipPool, metadata: {cidr: 10.8.0.0/24}, \
             spec: {ipip: {enabled: true, mode: sometimes}}}\n\
             - {apiVersion: v1, kind: ipPool, metadata: {cidr: 10.9.0.0/24}}\n",
            &[
                "created: IPPool(10-9-0-0-24)\nnot created: IPPool(10-8-0-0-24)\n",
                "error with field spec.ipip.mode = 'sometimes' (must be always or cross-subnet)",
            ],
        )],
    },
];
