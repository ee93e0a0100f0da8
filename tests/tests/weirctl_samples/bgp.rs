//! Sessions about BGP's resources.

use crate::{Session, done, refused};

const PEER: &str = "{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: tor}, \
     spec: {node: n1, peerIP: '10.0.0.1:1790', asNumber: '1.10', password: {secretKeyRef: \
     {name: bgp, key: tor}}}}";

const FILTER: &str = "{apiVersion: projectcalico.org/v3, kind: BGPFilter, metadata: {name: pools}, \
     spec: {exportV4: [{action: Accept, cidr: 10.7.0.0/16, matchOperator: In}, {action: Reject}]}}";

const STATUS: &str = "{apiVersion: projectcalico.org/v3, kind: CalicoNodeStatus, \
     metadata: {name: n1}, spec: {node: n1, classes: [BGP, Routes], updatePeriodSeconds: 10}}";

pub const SESSIONS: &[Session] = &[
    Session {
        name: "a peer, a filter and a report live and die",
        steps: &[
            done("create -f -", PEER, &["Successfully created 1 'BGPPeer' resource(s)"]),
            refused("create -f -", PEER, &["resource already exists: BGPPeer(tor)"]),
            done("get bgpp", "", &["NAME   PEERIP", "tor    10.0.0.1:1790   n1     65546"]),
            done("patch bgppeer tor -p 'spec: {maxRestartTime: 2m0s}'", "", &[]),
            refused(
                "patch bgppeer tor -p 'spec: {peerSelector: all()}'",
                "",
                &["BGPPeer.Spec.PeerIP = '10.0.0.1:1790' (must be empty when peerSelector"],
            ),
            done("label bp tor rack=r1", "", &["Successfully set label rack on bp tor"]),
            done("get bps tor -o yaml", "", &["rack: r1", "maxRestartTime: 2m0s"]),
            done("apply -f -", FILTER, &["Successfully applied 1 'BGPFilter' resource(s)"]),
            done("replace -f -", FILTER, &["Successfully replaced 1 'BGPFilter' resource(s)"]),
            done("get bf -o wide", "", &["NUMEXPORTV4", "pools   2             0"]),
            done("validate -f -", STATUS, &["Successfully validated 1"]),
            done("apply -f -", STATUS, &["Successfully applied 1 'CalicoNodeStatus'"]),
            done("get nodestatus -o wide", "", &["CLASSES", "n1     n1     BGP,Routes"]),
            done("delete bgppeer tor", "", &["Successfully deleted 1 'BGPPeer' resource(s)"]),
            done("delete bgpf pools", "", &["Successfully deleted 1"]),
            done("delete caliconodestatus n1", "", &["Successfully deleted 1"]),
            refused("get bgppeer tor", "", &["resource does not exist: BGPPeer(tor)"]),
        ],
    },
    Session {
        name: "a v1 peer is the peering of its address",
        steps: &[
            done(
                "apply -f -",
                "{apiVersion: v1, kind: bgpPeer, metadata: {scope: global, peerIP: 10.0.0.1}, \
                 spec: {asNumber: 64513}}",
                &["Successfully applied 1 'BGPPeer' resource(s)"],
            ),
            done("get bgppeer", "", &["peer-global-10-0-0-1   10.0.0.1   (global)   64513"]),
            done("patch bgppeer peer-global-10-0-0-1 -p 'spec: {ttlSecurity: 1}'", "", &[]),
            done(
                "apply -f -",
                "{apiVersion: v1, kind: bgpPeer, metadata: {scope: global, peerIP: 10.0.0.1}, \
                 spec: {asNumber: 64514}}",
                &[],
            ),
            done(
                "get bgppeer peer-global-10-0-0-1 -o yaml",
                "",
                &["asNumber: 64514", "ttlSecurity: 1"],
            ),
            refused(
                "create -f -",
                "{apiVersion: v1, kind: bgpPeer, metadata: {scope: node, peerIP: 10.0.0.1}, \
                 spec: {asNumber: 64513}}",
                &["metadata.node (must be specified where the scope is node)"],
            ),
            refused(
                "create -f -",
                "{apiVersion: v1, kind: bgpPeer, metadata: {scope: global}, \
                 spec: {peerIP: 10.0.0.1}}",
                &["peerIP; it belongs to the present form", "kind: BGPPeer"],
            ),
        ],
    },
    Session {
        name: "the cluster's BGP is set as in calicoctl 2.6",
        steps: &[
            done("config get nodeToNodeMesh", "", &["on\n"]),
            done("config set nodeToNodeMesh off", "", &[]),
            done("config set asNumber 64513", "", &[]),
            done("config get nodeToNodeMesh", "", &["off\n"]),
            done("config get asNumber", "", &["64513\n"]),
            done("get bgpconfig", "", &["default                 false         64513"]),
            done("patch node n1 -p 'spec: {bgp: {ipv4Address: 172.16.1.11/24}}'", "", &[]),
            done("get node -o wide", "", &["(64513)"]),
            refused("config set nodeToNodeMesh maybe", "", &["write on or off"]),
            refused(
                "patch bgpconfig default -p 'spec: {nodeMeshMaxRestartTime: 2m}'",
                "",
                &["BGPConfiguration.Spec.NodeMeshMaxRestartTime (needs the mesh"],
            ),
        ],
    },
];
