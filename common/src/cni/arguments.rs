//! `CNI_ARGS`: what the user of a runtime adds to a call.

use super::error::{Code, Error};

/// What Kubernetes sends besides, which Weir has no use for.
const WITHOUT_MEANING: [&str; 2] = ["K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"];

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
    /// Understands `CNI_ARGS`: `key=value` pairs separated by `;`. Keys are
    /// case-sensitive, and an unknown one is an error unless `IgnoreUnknown` is 1
    /// or true, in any case, as every runtime sends it (skel: `pkg/types/args.go`).
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`] for anything but pairs, and for unknown keys.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut arguments = Self::default();
        let mut unknown = None;
        let mut ignore_unknown = false;
        for (key, value) in pairs(text)? {
            let argument = match key {
                "IP" => &mut arguments.ip,
                "MAC" => &mut arguments.mac,
                "K8S_POD_NAMESPACE" => &mut arguments.pod_namespace,
                "K8S_POD_NAME" => &mut arguments.pod_name,
                "IgnoreUnknown" => {
                    ignore_unknown = boolean(value)?;
                    continue;
                }
                _ if WITHOUT_MEANING.contains(&key) => continue,
                _ => {
                    unknown.get_or_insert(key);
                    continue;
                }
            };
            *argument = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
        match unknown.filter(|_| !ignore_unknown) {
            None => Ok(arguments),
            Some(key) => Err(Error::new(
                Code::InvalidEnvironment,
                format!(
                    "CNI_ARGS has the unknown key {key:?}; correct it, or add IgnoreUnknown=1 if \
                     it is for another plugin"
                ),
            )),
        }
    }
}

fn pairs(text: &str) -> Result<Vec<(&str, &str)>, Error> {
    let pair = |pair| {
        let mut parts = str::split(pair, '=');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(key), Some(value), None) => Ok((key, value)),
            _ => Err(Error::new(
                Code::InvalidEnvironment,
                format!("CNI_ARGS {text:?}: {pair:?} is not KEY=VALUE; write KEY=VALUE;KEY=VALUE"),
            )),
        }
    };
    text.split(';').filter(|_| !text.is_empty()).map(pair).collect()
}

fn boolean(value: &str) -> Result<bool, Error> {
    match value.to_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Error::new(
            Code::InvalidEnvironment,
            format!("CNI_ARGS IgnoreUnknown {value:?} is neither 1 nor 0; write IgnoreUnknown=1"),
        )),
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
    fn unknown_keys() {
        for text in ["COLOUR=red", "ip=10.0.0.1", "COLOUR=red;IgnoreUnknown=0", "IgnoreUnknown=x"] {
            let error = Arguments::parse(text).unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment, "{text:?}");
        }
        assert!(Arguments::parse("COLOUR=red").unwrap_err().message.contains("COLOUR"));
        for text in ["COLOUR=red;IgnoreUnknown=1", "IgnoreUnknown=TRUE;ip=10.0.0.1"] {
            assert_eq!(Arguments::parse(text).unwrap(), Arguments::default(), "{text:?}");
        }
        assert!(Arguments::parse("K8S_POD_UID=7;K8S_POD_INFRA_CONTAINER_ID=c0ffee").is_ok());
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
