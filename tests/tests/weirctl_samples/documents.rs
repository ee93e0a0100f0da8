//! Documents: what is converted, and what is refused.

use super::{Session, done, refused};

/// A node's document with this part.
macro_rules! node {
    ($part:literal) => {
        concat!("{apiVersion: projectcalico.org/v3, kind: Node, ", $part, "}")
    };
}

/// A pool's document with this part.
macro_rules! pool {
    ($part:literal) => {
        concat!("{apiVersion: projectcalico.org/v3, kind: IPPool, ", $part, "}")
    };
}

/// The IPAM configuration's document with this spec.
macro_rules! ipam_config {
    ($spec:literal) => {
        concat!(
            "{apiVersion: projectcalico.org/v3, kind: IPAMConfiguration, \
             metadata: {name: default}, spec: {",
            $spec,
            "}}"
        )
    };
}

/// What of a pool stays under a v1 document, in JSON; NAT and the flag `disabled` are said there.
const P_OF_V1: &[&str] = &[
    "\"labels\": {\n      \"a\": \"b\"\n    },\n    \"annotations\": {\n      \"c\": \"d\"",
    "\"vxlanMode\": \"CrossSubnet\",\n    \"ipipMode\": \"Never\",\n    \"disableBGPExport\": true,\n    \
     \"blockSize\": 30,\n    \"nodeSelector\": \"has(x)\",\n    \"namespaceSelector\": \"has(y)\"",
    "[\n      \"Workload\"\n    ],\n    \"assignmentMode\": \"Manual\"",
];

pub const SESSIONS: &[Session] = &[
    Session {
        name: "numbers become text where text belongs",
        steps: &[
            done("apply -f -", node!("metadata: {name: n1, labels: {rack: 7, on: true}}"), &[]),
            done("get node n1 -o json", "", &["\"rack\": \"7\"", "\"on\": \"true\""]),
            done("create -f -", pool!("metadata: {name: 123}, spec: {cidr: 10.9.0.0/16}"), &[]),
            done("get ippool 123", "", &["123    10.9.0.0/16"]),
            done("patch ippool blue -p '{\"metadata\":{\"labels\":{\"a\":1}}}'", "", &[]),
            done("get ippool blue -o json", "", &["\"a\": \"1\""]),
        ],
    },
    Session {
        name: "an explicit false or 0 stays",
        steps: &[
            done(
                "apply -f -",
                ipam_config!("strictAffinity: true, autoAllocateBlocks: false"),
                &[],
            ),
            done("get ipamconfig default -o json", "", &["\"autoAllocateBlocks\": false"]),
            done("patch ipamconfig default -p 'spec: {maxBlocksPerHost: 3}'", "", &[]),
            done("ipam show --show-configuration -o json", "", &["Blocks\": false", "Host\": 3"]),
            refused("ipam configure --strictaffinity=false", "", &["Cannot disable"]),
            done("ipam configure --max-blocks-per-host=0", "", &[]),
            done("ipam show --show-configuration -o json", "", &["Blocks\": false", "Host\": 0"]),
            refused(
                "ipam explain --node n1",
                "",
                &["autoAllocateBlocks is off, turn it on: weirctl patch ipamconfig default"],
            ),
            done("patch ipamconfig default -p 'spec: {autoAllocateBlocks: true}'", "", &[]),
            done("ipam explain --node n1", "", &["10.7.0."]),
            done("delete ipamconfig default", "", &[]),
            done("create -f -", ipam_config!("strictAffinity: true, autoAllocateBlocks: no"), &[]),
            done(
                "replace -f -",
                ipam_config!("strictAffinity: true, autoAllocateBlocks: off"),
                &[],
            ),
            done("ipam show --show-configuration -o json", "", &["\"autoAllocateBlocks\": false"]),
            done("apply -f -", node!("metadata: {name: n1}, spec: {bgp: {asNumber: 0}}"), &[]),
            done("label node n1 a=b", "", &[]),
            done("get node n1 -o json", "", &["\"asNumber\": 0"]),
        ],
    },
    Session {
        name: "what a v1 document cannot say stays",
        steps: &[
            done(
                "create -f -",
                pool!(
                    "metadata: {name: p, labels: {a: b}, annotations: {c: d}}, spec: {cidr: \
                     10.9.0.0/28, blockSize: 30, nodeSelector: has(x), namespaceSelector: has(y), \
                     assignmentMode: Manual, disableBGPExport: true, allowedUses: [Workload], \
                     vxlanMode: CrossSubnet, natOutgoing: true, disabled: true}"
                ),
                &[],
            ),
            done(
                "apply -f -",
                "{apiVersion: v1, kind: ipPool, metadata: {cidr: 10.9.0.0/28}}",
                &["Successfully applied 1 'IPPool'"],
            ),
            done("get ippool p -o json", "", P_OF_V1),
            done(
                "replace -f -",
                "{apiVersion: v1, kind: ipPool, metadata: {cidr: 10.9.0.0/28}}",
                &["Successfully replaced 1 'IPPool'"],
            ),
            done("get ippool p -o json", "", P_OF_V1),
            refused(
                "apply -f -",
                "{apiVersion: v1, kind: ipPool, metadata: {cidr: 10.9.0.0/28}, \
                 spec: {ipip: {enabled: true}}}",
                &["Cannot enable both VXLAN and IPIP", "set vxlanMode or ipipMode to Never"],
            ),
            refused(
                "apply -f -",
                "{apiVersion: v1, kind: ipPool, metadata: {cidr: 10.9.0.1/28}}",
                &["IPPool CIDR is not strictly masked"],
            ),
            refused(
                "apply -f -",
                "{apiVersion: v1, kind: ipPool, metadata: {cidr: 10.9.1.0/28}}",
                &["IP pool size is too small"],
            ),
            done(
                "delete -f -",
                "{apiVersion: v1, kind: ipPool, metadata: {cidr: 10.9.0.0/28}}",
                &[],
            ),
        ],
    },
    Session {
        name: "what Calico could not read is not stored",
        steps: &[
            refused(
                "create -f -",
                pool!("metadata: {name: p, labels: {a: [1]}}, spec: {cidr: 10.9.0.0/16}"),
                &["Metadata.Labels", "must be an object of texts"],
            ),
            refused(
                "create -f -",
                pool!("metadata: {name: p, annotations: 5}, spec: {cidr: 10.9.0.0/16}"),
                &["Metadata.Annotations = '5' (must be an object of texts, not a number)"],
            ),
            refused(
                "create -f -",
                "{apiVersion: projectcalico.org/v3, kind: IPReservation, \
                 metadata: {name: r, finalizers: x}, spec: {reservedCIDRs: [10.9.0.1]}}",
                &["Metadata.Finalizers = 'x' (must be a list of texts, not text)"],
            ),
            refused(
                "apply -f -",
                node!(
                    "metadata: {name: n1}, spec: {orchRefs: 5, addresses: x, wireguard: x, \
                     ipv4VXLANTunnelAddr: {}}"
                ),
                &[
                    "Node.Spec.IPv4VXLANTunnelAddr",
                    "Node.Spec.OrchRefs = '5' (must be a list of objects, not a number)",
                    "Node.Spec.Wireguard = 'x' (must be an object, not text)",
                    "Node.Spec.Addresses = 'x' (must be a list of objects, not text)",
                ],
            ),
            refused("patch node n1 -p '{\"spec\":{\"orchRefs\":5}}'", "", &["Node.Spec.OrchRefs"]),
            refused("patch node n1 -p 'status: 5'", "", &["Node.Status = '5'"]),
            refused("validate -f -", node!("metadata: {name: n1, annotations: 5}"), &["Metadata"]),
            done("get node n1 -o json", "", &["\"spec\": {},\n  \"status\": {}"]),
            done("get ippool -o name", "", &["ippool/blue\n"]),
        ],
    },
    Session {
        name: "no namespaces",
        steps: &[refused(
            "create -f -",
            pool!("metadata: {name: p, namespace: x}, spec: {cidr: 10.9.0.0/16}"),
            &["Metadata.Namespace = 'x' (namespace should not be specified for a non-namespaced \
               resource. IPPool is not a namespaced resource); leave it out"],
        )],
    },
    Session {
        name: "labels and annotations follow Kubernetes",
        steps: &[
            refused("label node n1 'a=b c'", "", &["Metadata.Labels (value) = 'b c'"]),
            refused("label node n1 a/b/c=d", "", &["Metadata.Labels (label) = 'a/b/c'"]),
            refused(
                "apply -f -",
                node!("metadata: {name: n1, labels: {-a: b}}"),
                &["Metadata.Labels (label) = '-a'"],
            ),
            refused(
                "apply -f -",
                node!("metadata: {name: n1, annotations: {a b: c}}"),
                &["Metadata.Annotations (key) = 'a b'"],
            ),
            done("label node n1 example.com/zone=A.b_c-1", "", &["Successfully set label"]),
        ],
    },
    Session {
        name: "a version without quotes counts",
        steps: &[
            refused(
                "replace -f -",
                pool!("metadata: {name: blue, resourceVersion: 999}, spec: {cidr: 10.7.0.0/24}"),
                &["update conflict: IPPool(blue)", "the document has 999"],
            ),
            refused(
                "delete -f -",
                pool!("metadata: {name: blue, resourceVersion: 999}, spec: {cidr: 10.7.0.0/24}"),
                &["update conflict: IPPool(blue)"],
            ),
        ],
    },
    Session {
        name: "YAML as calicoctl reads it",
        steps: &[
            done(
                "create -f -",
                "\u{feff}apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\n\
                 spec: {cidr: 10.9.0.0/16, natOutgoing: yes}\n",
                &["Successfully created 1"],
            ),
            done("get ipp p -o custom-columns=NAT", "", &["true"]),
            done(
                "create -f -",
                "- &a\n  apiVersion: projectcalico.org/v3\n  kind: IPPool\n  \
                 metadata: {name: a}\n  spec: {cidr: 10.10.0.0/16}\n\
                 - <<: *a\n  metadata: {name: b}\n  spec: {cidr: 10.11.0.0/16}\n",
                &["Successfully created 2"],
            ),
            refused(
                "create -f -",
                "{\"apiVersion\": \"projectcalico.org/v3\", \"kind\": \"IPPool\", \"metadata\": \
                 {\"name\": \"c\", \"name\": \"d\"}, \"spec\": {\"cidr\": \"10.12.0.0/16\"}}",
                &["the field name is there twice"],
            ),
        ],
    },
    Session {
        name: "there is one IPAM configuration",
        steps: &[
            done("ipam configure --strictaffinity=true", "", &[]),
            refused(
                "delete ipamconfig foo",
                "",
                &["resource does not exist: IPAMConfiguration(foo)", "weirctl get ipamconfig"],
            ),
            refused("get ipamconfig foo", "", &["resource does not exist"]),
            refused(
                "patch ipamconfig foo -p 'spec: {maxBlocksPerHost: 4}'",
                "",
                &["resource does not exist"],
            ),
            refused(
                "delete -f -",
                "{apiVersion: projectcalico.org/v3, kind: IPAMConfiguration, \
                 metadata: {name: foo}}",
                &["resource does not exist"],
            ),
            done("get ipamconfig default", "", &["default   true"]),
            done("delete ipamconfig default", "", &["Successfully deleted 1"]),
        ],
    },
    Session {
        name: "small things of documents",
        steps: &[
            refused(
                "apply -f -",
                "{apiVersion: projectcalico.org/v3, kind: IPAMConfiguration, \
                 metadata: {name: default, labels: {a: b}}, spec: {strictAffinity: true}}",
                &["metadata.labels (IPAMConfiguration is stored without labels); leave them out"],
            ),
            refused(
                "apply -f -",
                node!("metadata: {name: n1}, spec: {bgp: {}}"),
                &["Node.Spec.BGP (Spec.BGP should not be empty); leave it out"],
            ),
            refused(
                "apply -f -",
                node!("metadata: {name: n1}, spec: {bgp: {routeReflectorClusterID: here}}"),
                &["Node.Spec.BGP.RouteReflectorClusterID = 'here' (must be an IPv4 address"],
            ),
            done(
                "apply -f -",
                node!("metadata: {name: n1, annotations: {a: \"x\\u2028y\\u0085z\"}}"),
                &[],
            ),
            done("get node n1 -o yaml", "", &["a: \"x\\u2028y\\u0085z\""]),
        ],
    },
];
