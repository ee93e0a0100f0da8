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
