//! Sessions about FelixConfiguration.

use crate::{Session, done, refused};

const CLUSTER: &str = "{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, \
     metadata: {name: default}, spec: {vxlanVNI: 5000, vxlanEnabled: on, logSeverityScreen: Info, \
     futureSetting: [1]}}";

pub const SESSIONS: &[Session] = &[Session {
    name: "the settings of tunnels live and die",
    steps: &[
        done("validate -f -", CLUSTER, &["Successfully validated 1"]),
        done("create -f -", CLUSTER, &["Successfully created 1 'FelixConfiguration' resource(s)"]),
        refused("create -f -", CLUSTER, &["resource already exists: FelixConfiguration(default)"]),
        done("get felixconfigs", "", &["NAME", "default"]),
        done("patch felixconfiguration default -p 'spec: {vxlanPort: 8472}'", "", &[]),
        refused(
            "patch felixconfig default -p 'spec: {vxlanPort: 70000}'",
            "",
            &["FelixConfiguration.Spec.VXLANPort = '70000' (must be a number from 1 to 65535)"],
        ),
        refused(
            "patch felixconfig default -p 'spec: {vxlanPrt: 1}'",
            "",
            &["vxlanPrt", "did you mean vxlanPort?"],
        ),
        done(
            "get felixconfigurations default -o yaml",
            "",
            &["futureSetting:", "vxlanEnabled: true", "vxlanPort: 8472", "vxlanVNI: 5000"],
        ),
        done("label felixconfig default a=b", "", &["Successfully set label a on"]),
        done("delete felixconfig default", "", &["Successfully deleted 1"]),
        refused(
            "get felixconfig default",
            "",
            &["resource does not exist: FelixConfiguration(default)"],
        ),
    ],
}];
