//! `weirctl node checksystem`

use clap::Args;
use weir_kernel::find_nft;

use crate::kernel_modules::{
    KERNEL_MODULES, KernelModule, ModuleFacts, ModuleState, OLDEST_KERNEL, is_new_enough,
};
use crate::session::{CommandResult, Failure};

/// Arguments of `weirctl node checksystem`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Looks at the kernel's release and modules, at forwarding, and for the program \
                  nft. It needs no datastore. Exit status 1 when Weir cannot work here; what \
                  only some pools or networks need is a warning.\n\n\
                  Examples:\n  weirctl node checksystem"
)]
pub struct ChecksystemArgs {
    /// File of the kernel's options (by default /boot/config-RELEASE)
    #[arg(long, value_name = "FILE")]
    kernel_config: Option<String>,
}

/// What is looked at.
struct SystemFacts {
    release: String,
    modules: ModuleFacts,
    /// `net.ipv4.ip_forward`, where the kernel has it.
    forwarding: Option<String>,
    has_nft: bool,
}

/// Reads this machine and judges it.
///
/// # Errors
/// [`Failure`] when something is missing that Weir always needs.
pub fn run(arguments: &ChecksystemArgs) -> CommandResult {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let configuration = arguments.kernel_config.as_deref();
    if let Some(file) = configuration.filter(|file| read(file).is_none()) {
        return Err(Failure::new(format!("{file} cannot be read; check the path")));
    }
    judge(&SystemFacts {
        modules: ModuleFacts::read(&release, configuration, read),
        release,
        forwarding: read("/proc/sys/net/ipv4/ip_forward").map(|text| text.trim().to_owned()),
        has_nft: find_nft().is_some(),
    })
}

fn judge(facts: &SystemFacts) -> CommandResult {
    let mut output = String::from("Checking kernel version...\n");
    let mut missing = Vec::new();
    let new = is_new_enough(&facts.release);
    output += &line(&facts.release, if new { "OK" } else { "FAIL" });
    if !new {
        missing.push(format!("Linux {}.{} or newer", OLDEST_KERNEL.0, OLDEST_KERNEL.1));
    }
    output += "Checking kernel modules...\n";
    for module in KERNEL_MODULES.iter() {
        let state = facts.modules.state(module);
        let (result, note) = of_module(module, state);
        output += &(note + &line(module.name, result));
        if result == "FAIL" {
            missing.push(format!("the kernel module {}", module.name));
        }
    }
    output += "Checking kernel parameters...\n";
    let (result, note) = match facts.forwarding.as_deref() {
        Some("1") => ("OK", ""),
        Some(_) => ("OK", "net.ipv4.ip_forward is off until the first ADD switches it on\n"),
        None => ("FAIL", ""),
    };
    output += &(note.to_owned() + &line("net.ipv4.ip_forward", result));
    if result == "FAIL" {
        missing.push("net.ipv4.ip_forward".to_owned());
    }
    output += "Checking programs...\n";
    if !facts.has_nft {
        output += "WARNING: without nft (package nftables) there is no source check \
                   (source_check) and no NAT (natOutgoing)\n";
    }
    output += &line("nft", if facts.has_nft { "OK" } else { "WARNING" });
    if missing.is_empty() {
        return Ok(output + "System meets minimum system requirements to run Weir!\n");
    }
    let message =
        "System doesn't meet one or more minimum systems requirements to run Weir: it lacks";
    Err(Failure { output, message: format!("{message} {}", missing.join(", ")) })
}

/// The result for a module, and what is said before it.
fn of_module(module: &KernelModule, state: ModuleState) -> (&'static str, String) {
    let name = module.name;
    match (state, module.only_for.as_deref()) {
        (ModuleState::Present, _) => ("OK", String::new()),
        (ModuleState::Missing, None) => ("FAIL", String::new()),
        (ModuleState::Missing, Some(uses)) => {
            ("WARNING", format!("WARNING: without {name} there is none of this: {uses}\n"))
        }
        (ModuleState::Unknown, _) => (
            "UNKNOWN",
            format!(
                "WARNING: nothing here says whether the kernel has {name}; try: modprobe {name}\n"
            ),
        ),
    }
}

fn line(what: &str, result: &str) -> String {
    format!("\t\t{what:<20}\t\t\t\t\t{result}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(options: &[&str], release: &str, has_nft: bool) -> SystemFacts {
        let options: String = options.iter().map(|it| format!("{it}=y\n")).collect();
        let read = |path: &str| (path == "config").then(|| options.clone());
        SystemFacts {
            release: release.to_owned(),
            modules: ModuleFacts::read(release, Some("config"), read),
            forwarding: Some("0".to_owned()),
            has_nft,
        }
    }

    #[test]
    fn what_only_some_need_is_a_warning_and_the_rest_fails() {
        let output = judge(&facts(&["CONFIG_VETH"], "6.1.0", false)).unwrap();
        assert!(output.starts_with("Checking kernel version...\n\t\t6.1.0               \t"));
        for said in
            ["without ipip there is none of this: tunnels", "without nft", "until the first"]
        {
            assert!(output.contains(said), "{output}");
        }
        assert!(output.ends_with("requirements to run Weir!\n"), "{output}");
        let failure = judge(&facts(&["CONFIG_NET_IPIP"], "4.19.0", true)).unwrap_err();
        assert!(failure.message.ends_with("lacks Linux 5.6 or newer, the kernel module veth"));
        assert!(
            !failure.output.contains("without ipip") && !failure.output.contains("without nft (")
        );
    }
}
