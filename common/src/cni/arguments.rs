//! `CNI_ARGS`: what the user of a runtime adds to a call.

use super::{Code, Error};

/// The arguments Weir knows, as the runtime wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `IP`: addresses asked for, separated by commas.
    pub ip: Option<String>,
    /// `MAC`: the hardware address asked for.
    pub mac: Option<String>,
    /// `K8S_POD_NAMESPACE`
    pub pod_namespace: Option<String>,
    /// `K8S_POD_NAME`
    pub pod_name: Option<String>,
}

impl Arguments {
    /// Understands `CNI_ARGS`: `key=value` pairs separated by `;`.
    ///
    /// Unknown keys are let pass, as Calico does by forcing `IgnoreUnknown`
    /// (`cni-plugin/internal/pkg/utils`): a plugin cannot know what a runtime
    /// may add. Keys are case-sensitive (skel: `pkg/types/args.go`).
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`] for anything but pairs.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut arguments = Self::default();
        for pair in text.split(';').filter(|_| !text.is_empty()) {
            let mut parts = pair.split('=');
            let (Some(key), Some(value), None) = (parts.next(), parts.next(), parts.next()) else {
                return Err(Error::new(
                    Code::InvalidEnvironment,
                    format!(
                        "CNI_ARGS {text:?}: {pair:?} is not KEY=VALUE; write KEY=VALUE;KEY=VALUE"
                    ),
                ));
            };
            let argument = match key {
                "IP" => &mut arguments.ip,
                "MAC" => &mut arguments.mac,
                "K8S_POD_NAMESPACE" => &mut arguments.pod_namespace,
                "K8S_POD_NAME" => &mut arguments.pod_name,
                _ => continue,
            };
            *argument = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_arguments() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=7;IP=";
        let arguments = Arguments::parse(text).unwrap();
        assert_eq!(arguments.pod_namespace.as_deref(), Some("shop"));
        assert_eq!(arguments.pod_name.as_deref(), Some("cart"));
        assert_eq!(arguments.ip, None);
    }

    #[test]
    fn only_pairs() {
        for text in ["IP", "IP=a=b", "IP=1;", ";"] {
            let error = Arguments::parse(text).unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment, "{text:?}");
        }
        assert_eq!(Arguments::parse("").unwrap(), Arguments::default());
    }
}
