//! `weirctl node repair`

use clap::Args;
use weir_ipam::HostEndRepair;

use crate::session::{CommandResult, Failure, Session};

/// Arguments of `weirctl node repair`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Brings back what the node's side of its containers has lost: links that are \
                  down, routes, addresses and kernel parameters. The agent does the same by \
                  itself. For the routes to other nodes and NAT, run: weirctl node run --once\n\n\
                  Examples:\n  weirctl node repair"
)]
pub struct RepairArgs {}

/// Repairs the host ends of this node's containers, and says what was done.
///
/// # Errors
/// [`Failure`] when something could not be repaired, or the kernel cannot be read.
pub async fn run(_: RepairArgs, session: &Session<'_>) -> CommandResult {
    let outcome = session.environment.repair_host_ends(session.datastore).await?;
    let output = in_words(&outcome);
    if outcome.failures.is_empty() {
        return Ok(output);
    }
    Err(Failure { output, message: outcome.left().collect::<Vec<_>>().join("\n") })
}

fn in_words(outcome: &HostEndRepair) -> String {
    let mut text = String::new();
    for (identity, steps) in &outcome.repaired {
        let (container, link) = (identity.container_id(), identity.host_interface());
        text += &format!("Repaired container {container} (link {link}):\n");
        for step in steps {
            text += &format!("  {step}\n");
        }
    }
    if !outcome.busy.is_empty() {
        let busy = outcome.busy.len();
        text += &format!("Passed over {busy}: a call is at work on them; run this again\n");
    }
    if text.is_empty() && outcome.failures.is_empty() {
        text += "Nothing is missing\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use weir_common::network::{AttachmentIdentity, Side, Step};

    use super::*;

    #[test]
    fn what_was_done_is_told_as_commands() {
        assert_eq!(in_words(&HostEndRepair::default()), "Nothing is missing\n");
        let identity = AttachmentIdentity::new("pods", "c1", "eth0").unwrap();
        let link = identity.host_interface();
        let step = Step::SetLinkUp { side: Side::Host, link: link.clone() };
        let repaired = vec![(identity, vec![step])];
        let text = in_words(&HostEndRepair { repaired, busy: [7].into(), ..Default::default() });
        assert!(text.contains(&format!("c1 (link {link}):\n  ip link set {link} up")), "{text}");
        assert!(text.contains("Passed over 1"), "{text}");
    }
}
