//! What every CNI plugin does around its own work: understand the call, refuse
//! what is outside the contract before anything is touched, and print one
//! answer.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::configuration::{Logging, NetworkConfiguration};
use super::environment::is_identifier;
use super::environment::{CniCommand, Environment};
use super::error::{Code, Error};
use super::result::AddResult;
use super::trace::TraceContext;
use super::version::SpecVersion;

#[cfg(test)]
mod tests;

/// The largest configuration that is read, in bytes. Runtimes pass a few
/// kilobytes; a result of another plugin may be in it.
const MAX_INPUT: u64 = 16 << 20;

/// A checked call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The variables.
    pub environment: Environment,
    /// The configuration.
    pub configuration: NetworkConfiguration,
    /// The configuration as it came in, for a delegated plugin.
    pub input: Vec<u8>,
}

/// What the log says of a call, whether or not the call can be understood.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// The command, as the runtime wrote it.
    pub command: String,
    /// `CNI_CONTAINERID`, likewise.
    pub container_id: String,
    /// `CNI_IFNAME`, likewise.
    pub interface: String,
    /// The network's name; empty where that cannot be read.
    pub network: String,
    /// The trace that the call is part of.
    pub trace: Option<TraceContext>,
    /// What is logged, and where.
    pub logging: Logging,
}

impl Outline {
    /// That of a checked call.
    pub fn of(call: &Call, command: CniCommand) -> Self {
        let Call { environment, configuration, .. } = call;
        Self {
            command: command.as_str().to_owned(),
            container_id: environment.container_id.clone(),
            interface: environment.interface.clone(),
            network: configuration.network.clone(),
            trace: environment.trace.clone(),
            logging: configuration.logging.clone(),
        }
    }

    /// That of a call whose configuration is not read yet.
    fn before(command: &OsStr, variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let text = |name| variable(name).unwrap_or_default().to_string_lossy().into_owned();
        Self {
            command: command.to_string_lossy().into_owned(),
            container_id: text("CNI_CONTAINERID"),
            interface: text("CNI_IFNAME"),
            trace: TraceContext::parse(&text("TRACEPARENT"), &text("TRACESTATE")),
            ..Self::default()
        }
    }

    /// Takes from a configuration what can be read of it.
    fn note(&mut self, json: &Map<String, Value>) {
        self.network = json.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.logging = Logging::lenient(json);
    }
}

/// The work of a plugin.
pub trait Plugin {
    /// The program's name and what it is, in one line.
    fn about(&self) -> String;

    /// Attaches the container.
    ///
    /// # Errors
    /// Any; nothing may be left behind then.
    fn add(&self, call: &Call) -> Result<AddResult, Error>;

    /// Detaches the container. Succeeds when there is nothing to do.
    ///
    /// # Errors
    /// Only when it is worth calling again.
    fn del(&self, call: &Call) -> Result<(), Error>;

    /// Finds out whether the attachment is as ADD made it.
    ///
    /// # Errors
    /// When it is not.
    fn check(&self, call: &Call) -> Result<(), Error>;

    /// Removes what belongs to none of [`NetworkConfiguration::valid_attachments`].
    ///
    /// # Errors
    /// All that could not be removed, after everything has been tried.
    fn gc(&self, call: &Call) -> Result<(), Error>;

    /// Finds out whether an ADD would work, and whether what was added works.
    ///
    /// # Errors
    /// [`Code::NotAvailable`], [`Code::LimitedConnectivity`], or what keeps it
    /// from finding out.
    fn status(&self, call: &Call) -> Result<(), Error>;
}

/// The variables and streams of the process that a plugin runs in.
pub struct ProcessIo<'a> {
    /// Looks a variable up.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Standard input; `None` when it is a terminal, which is never read.
    pub input: Option<&'a mut dyn Read>,
    /// Standard output: one JSON document at the most.
    pub output: &'a mut dyn Write,
    /// Standard error, for people.
    pub messages: &'a mut dyn Write,
    /// Told of a call that failed, before the answer is printed.
    pub failed: &'a dyn Fn(&Outline, &Error),
}

/// Runs one call and returns the process's exit status: 0, or 1 with an error
/// as JSON on standard output.
pub fn run(plugin: &dyn Plugin, io: ProcessIo<'_>) -> u8 {
    let ProcessIo { variable, input, output, messages, failed } = io;
    let Some(command) = variable("CNI_COMMAND").filter(|command| !command.is_empty()) else {
        let versions = SpecVersion::ALL.map(SpecVersion::as_str).join(", ");
        let about = plugin.about();
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(messages, "{about}\nCNI protocol versions supported: {versions}");
        return 0;
    };
    let mut answer_version = SpecVersion::LATEST.as_str().to_owned();
    let mut outline = Outline::before(&command, variable);
    let known = (&mut outline, &mut answer_version);
    let answered = answer(plugin, &command, variable, input, known);
    let (document, added, status) = match answered {
        Ok(Answer { document, added }) => (document, added, 0),
        Err(error) => {
            failed(&outline, &error);
            (Some(error.to_json(&answer_version)), None, 1)
        }
    };
    let written = match document {
        None => Ok(()),
        Some(document) => writeln!(output, "{document}").and_then(|()| output.flush()),
    };
    match written {
        Ok(()) => status,
        Err(error) => {
            let _ = writeln!(messages, "the answer cannot be written to standard output: {error}");
            // A runtime that got no result does not know of the attachment.
            if let Some(Err(error)) = added.map(|call| plugin.del(&call)) {
                let _ = writeln!(messages, "the attachment could not be removed again: {error}");
            }
            1
        }
    }
}

/// What there is to say after a call that succeeded.
struct Answer {
    /// What to print.
    document: Option<Value>,
    /// The call, if it attached a container.
    added: Option<Call>,
}

/// Finds the answer, or an error. What the log says of the call and the version to answer
/// in are noted as soon as they are known. The configuration is read first, also where
/// the variables are wrong: it says where to log that.
fn answer(
    plugin: &dyn Plugin,
    command: &OsStr,
    variable: &dyn Fn(&str) -> Option<OsString>,
    input: Option<&mut dyn Read>,
    (outline, answer_version): (&mut Outline, &mut String),
) -> Result<Answer, Error> {
    let input = read(input);
    let json = input.as_ref().map_err(Error::clone).and_then(|input| decode(input));
    if let Ok(json) = &json {
        outline.note(json);
    }
    let command = CniCommand::parse(&command.to_string_lossy())?;
    let environment = Environment::read(command, variable)?;
    if command == CniCommand::Version {
        return Ok(Answer { document: Some(version_answer(json.ok().as_ref())), added: None });
    }
    let (input, json) = (input?, json?);
    if let Ok(version) = written_version(command, &json) {
        version.as_str().clone_into(answer_version);
    }
    let network = network_name(&json)?;
    let version = version(command, &json)?;
    let configuration = match command {
        CniCommand::Del => NetworkConfiguration::for_removal(network, version, &json)?,
        CniCommand::Gc => NetworkConfiguration::for_collection(network, version, &json)?,
        _ => {
            let arguments = Arguments::parse(&environment.arguments)?;
            NetworkConfiguration::validate(network, version, &json, &arguments)?
        }
    };
    let call = Call { environment, configuration, input };
    let document = perform(plugin, command, &call)?;
    Ok(Answer { document, added: (command == CniCommand::Add).then_some(call) })
}

/// Checks a configuration as an ADD with these arguments does.
///
/// # Errors
/// What the ADD answers: without a name or with an unknown version, and as
/// [`NetworkConfiguration::validate`].
pub fn check_add(
    json: &Map<String, Value>,
    arguments: &Arguments,
) -> Result<NetworkConfiguration, Error> {
    NetworkConfiguration::validate(
        network_name(json)?,
        version(CniCommand::Add, json)?,
        json,
        arguments,
    )
}

fn perform(plugin: &dyn Plugin, command: CniCommand, call: &Call) -> Result<Option<Value>, Error> {
    let work = || match command {
        CniCommand::Add => plugin.add(call)?.to_json(call.configuration.version).map(Some),
        CniCommand::Del => plugin.del(call).map(|()| None),
        CniCommand::Check => plugin.check(call).map(|()| None),
        CniCommand::Gc => plugin.gc(call).map(|()| None),
        CniCommand::Status => plugin.status(call).map(|()| None),
        CniCommand::Version => Ok(None),
    };
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let error = Error::new(
            Code::Internal,
            format!("{} failed unexpectedly; please report it", command.as_str()),
        );
        Err(clean_up(plugin, command, call, error.with_details(text)))
    })
}

/// An ADD that broke off has undone nothing: DEL does.
fn clean_up(plugin: &dyn Plugin, command: CniCommand, call: &Call, error: Error) -> Error {
    if command != CniCommand::Add {
        return error;
    }
    match catch_unwind(AssertUnwindSafe(|| plugin.del(call))) {
        Ok(Ok(())) => error,
        Ok(Err(second)) => {
            let details = format!("{}; and then: {second}", error.details);
            error.with_details(details)
        }
        Err(_) => error,
    }
}

fn read(input: Option<&mut dyn Read>) -> Result<Vec<u8>, Error> {
    let Some(input) = input else {
        let message = "standard input is a terminal; pass the network configuration on it";
        return Err(Error::new(Code::Io, message));
    };
    let mut bytes = Vec::new();
    input
        .take(MAX_INPUT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(Code::Io, format!("standard input cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_INPUT {
        let message = format!("the network configuration is larger than {MAX_INPUT} bytes");
        return Err(Error::new(Code::Io, message));
    }
    Ok(bytes)
}

fn decode(input: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(input).map_err(|error| {
        Error::new(Code::Decode, format!("the network configuration is not a JSON object: {error}"))
    })
}

fn network_name(json: &Map<String, Value>) -> Result<String, Error> {
    let advice = "it begins with a letter or digit and goes on with letters, digits, '_', '.', '-'";
    match json.get("name") {
        Some(Value::String(name)) if is_identifier(name) => Ok(name.clone()),
        Some(name) => Err(Error::new(
            Code::InvalidConfiguration,
            format!("name {name} is not a name of a network: {advice}"),
        )),
        None => Err(Error::new(
            Code::InvalidConfiguration,
            format!("name is missing from the network configuration: {advice}"),
        )),
    }
}

/// The configuration's version, if the command exists in it (spec: CHECK since
/// 0.4.0, GC and STATUS since 1.1.0).
fn version(command: CniCommand, json: &Map<String, Value>) -> Result<SpecVersion, Error> {
    let version = written_version(command, json)?;
    let too_old = |since: &str| {
        let message = format!(
            "{} exists since CNI {since}; the configuration's cniVersion is {}",
            command.as_str(),
            version.as_str()
        );
        Err(Error::new(Code::IncompatibleVersion, message))
    };
    match command {
        CniCommand::Check if version < SpecVersion::V0_4_0 => too_old("0.4.0"),
        CniCommand::Gc | CniCommand::Status if version < SpecVersion::V1_1_0 => too_old("1.1.0"),
        _ => Ok(version),
    }
}

/// The configuration's version; without one it is the first.
fn written_version(command: CniCommand, json: &Map<String, Value>) -> Result<SpecVersion, Error> {
    let is_wrong = |flaw: String| Err(Error::new(Code::Decode, flaw));
    match json.get("cniVersion") {
        None | Some(Value::Null) => Ok(SpecVersion::V0_1_0),
        Some(Value::String(text)) if text.is_empty() => Ok(SpecVersion::V0_1_0),
        Some(Value::String(text)) if compares_versions(command) && !is_version(text) => {
            is_wrong(format!("cniVersion {text:?} is not a version"))
        }
        Some(Value::String(text)) => SpecVersion::parse(text),
        Some(other) => is_wrong(format!("cniVersion {other} is not text")),
    }
}

/// Whether a command exists from some version on only. There the reference takes
/// the configuration's apart, and what is none does not decode (skel: `pluginMain`).
fn compares_versions(command: CniCommand) -> bool {
    matches!(command, CniCommand::Check | CniCommand::Gc | CniCommand::Status)
}

/// Whether a text is one to three numbers with dots between them.
fn is_version(text: &str) -> bool {
    text.split('.').count() <= 3 && text.split('.').all(|part| part.parse::<u32>().is_ok())
}

/// The versions there are, in answer to the version asked in, as far as that
/// can be read (spec: "VERSION"). An empty one means the first, as everywhere; libcni
/// takes no empty one in an answer (`pkg/version/plugin.go`, PluginDecoder).
fn version_answer(json: Option<&Map<String, Value>>) -> Value {
    let asked = json.and_then(|json| json.get("cniVersion")?.as_str());
    let asked = asked.map(|text| if text.is_empty() { SpecVersion::V0_1_0.as_str() } else { text });
    let versions = SpecVersion::ALL.map(SpecVersion::as_str);
    json!({
        "cniVersion": asked.unwrap_or(SpecVersion::LATEST.as_str()),
        "supportedVersions": versions,
    })
}
