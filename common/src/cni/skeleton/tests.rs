use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::cni::LogLevel;

/// Counts how often it was told to detach.
#[derive(Default)]
struct Fake {
    detached: std::cell::Cell<u32>,
}

impl Plugin for Fake {
    fn about(&self) -> String {
        "fake, for tests".to_owned()
    }
    fn add(&self, call: &Call) -> Result<AddResult, Error> {
        assert_ne!(call.environment.container_id, "panic", "told to");
        Ok(AddResult::default())
    }
    fn del(&self, _: &Call) -> Result<(), Error> {
        self.detached.set(self.detached.get() + 1);
        Ok(())
    }
    fn check(&self, _: &Call) -> Result<(), Error> {
        Err(Error::new(Code::CheckFailed, "it is not"))
    }
    fn gc(&self, call: &Call) -> Result<(), Error> {
        match &call.configuration.valid_attachments {
            Some(valid) if valid.len() == 1 => Ok(()),
            valid => Err(Error::new(Code::Internal, format!("{valid:?}"))),
        }
    }
    fn status(&self, _: &Call) -> Result<(), Error> {
        Err(Error::new(Code::NotAvailable, "it is full"))
    }
}

/// Runs a call; returns status, standard output and standard error.
fn call(variables: &[(&str, &str)], input: &str) -> (u8, String, String) {
    let find = |name: &str| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
    };
    let (mut output, mut messages) = (Vec::new(), Vec::new());
    let status = run(
        &Fake::default(),
        ProcessIo {
            variable: &find,
            input: Some(&mut input.as_bytes()),
            output: &mut output,
            messages: &mut messages,
            failed: &|_, _| {},
        },
    );
    (status, String::from_utf8(output).unwrap(), String::from_utf8(messages).unwrap())
}

fn call_for(command: &str, input: &str) -> (u8, Value) {
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c"),
        ("CNI_NETNS", "/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let (status, output, _) = call(&variables, input);
    (status, serde_json::from_str(&output).unwrap_or(Value::Null))
}

#[test]
fn without_a_command_it_says_what_it_is() {
    let (status, output, messages) = call(&[], "");
    assert_eq!((status, output.as_str()), (0, ""));
    assert!(messages.contains("fake") && messages.contains("1.1.0"), "{messages}");
}

/// Go reads `null` as the text that is not there.
#[test]
fn a_version_that_is_null_is_none() {
    for version in ["null", r#""""#] {
        let input = format!(r#"{{"cniVersion":{version},"name":"n"}}"#);
        assert_eq!(call_for("DEL", &input), (0, Value::Null), "{version}");
    }
}

#[test]
fn each_kind_of_bad_input_has_its_code() {
    for (command, input, code) in [
        ("ATTACH", "{}", 4),
        ("ADD", "{", 6),
        ("ADD", "[]", 6),
        ("ADD", r#"{"cniVersion":"1.0.0"}"#, 7),
        ("ADD", r#"{"cniVersion":"1.0.0","name":"-"}"#, 7),
        ("ADD", r#"{"cniVersion":"9.0.0","name":"n"}"#, 1),
        ("ADD", r#"{"cniVersion":"1.0","name":"n"}"#, 1),
        ("ADD", r#"{"cniVersion":1,"name":"n"}"#, 6),
        ("CHECK", r#"{"cniVersion":"0.3.1","name":"n"}"#, 1),
        ("CHECK", r#"{"cniVersion":"9.0","name":"n"}"#, 1),
        ("CHECK", r#"{"cniVersion":"new","name":"n"}"#, 6),
        ("GC", r#"{"cniVersion":"1.0.0.0","name":"n"}"#, 6),
        ("ADD", r#"{"cniVersion":"new","name":"n"}"#, 1),
        ("CHECK", r#"{"cniVersion":"1.0.0","name":"n"}"#, 107),
        ("GC", r#"{"cniVersion":"1.0.0","name":"n"}"#, 1),
        ("STATUS", r#"{"cniVersion":"1.0.0","name":"n"}"#, 1),
        ("STATUS", r#"{"cniVersion":"1.1.0","name":"n"}"#, 50),
        ("GC", r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"id":"c"}]}"#, 6),
    ] {
        let (status, json) = call_for(command, input);
        assert_eq!((status, json["code"].as_u64()), (1, Some(code)), "{command} {input}: {json}");
    }
}

#[test]
fn success_prints_only_what_it_must() {
    let conf = r#"{"cniVersion":"0.4.0","name":"n"}"#;
    assert_eq!(call_for("ADD", conf).1["cniVersion"], "0.4.0");
    assert_eq!(call_for("DEL", conf), (0, Value::Null));
    assert_eq!(call_for("DEL", r#"{"name":"n"}"#), (0, Value::Null));
    let gc = r#"{"cniVersion":"1.1.0","name":"n","mtu":"big","cni.dev/valid-attachments":
                 [{"containerID":"c","ifname":"eth0"}]}"#;
    assert_eq!(call_for("GC", gc), (0, Value::Null));
}

#[test]
fn a_command_that_is_no_text_is_unknown() {
    let variable = |_: &str| Some(OsString::from_vec(b"ADD\xff".to_vec()));
    let mut output = Vec::new();
    let io = ProcessIo {
        variable: &variable,
        input: None,
        output: &mut output,
        messages: &mut Vec::new(),
        failed: &|_, _| {},
    };
    assert_eq!(run(&Fake::default(), io), 1);
    assert!(String::from_utf8_lossy(&output).contains("CNI_COMMAND"), "{output:?}");
}

/// Whatever is wrong, the log is where the configuration says it is.
#[test]
fn every_failure_is_told_once_with_what_the_log_needs() {
    let told = |variables: &[(&str, &str)], input: &str| {
        let find = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
        };
        let told = std::cell::RefCell::new(Vec::new());
        let io = ProcessIo {
            variable: &find,
            input: Some(&mut input.as_bytes()),
            output: &mut Vec::new(),
            messages: &mut Vec::new(),
            failed: &|outline, error| told.borrow_mut().push((outline.clone(), error.clone())),
        };
        run(&Fake::default(), io);
        told.into_inner()
    };
    let good = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c"),
        ("CNI_NETNS", "/x"),
        ("CNI_IFNAME", "eth0"),
    ];
    let bad_id = good.map(|(key, value)| (key, if value == "c" { "-" } else { value }));
    let unknown = good.map(|(key, value)| (key, if value == "ADD" { "ATTACH" } else { value }));
    let panics = good.map(|(key, value)| (key, if value == "c" { "panic" } else { value }));
    let input = |version: &str, more: &str| {
        format!(
            r#"{{"cniVersion":"{version}","name":"n","log_level":"error",
                 "log_file_path":"/l"{more}}}"#
        )
    };
    for (variables, input, code) in [
        (good, input("1.0.0", r#","mtu":"x""#), Code::Decode),
        (good, input("1.0.0", r#","log_file_max_size":"no""#), Code::Decode),
        (good, input("9.9.9", ""), Code::IncompatibleVersion),
        (good, input("1.0.0", r#","ipam":{"type":""}"#), Code::InvalidConfiguration),
        (bad_id, input("1.0.0", ""), Code::InvalidEnvironment),
        (unknown, input("1.0.0", ""), Code::InvalidEnvironment),
        (panics, input("1.0.0", ""), Code::Internal),
    ] {
        let told = told(&variables, &input);
        let [(outline, error)] = told.as_slice() else { panic!("{input}: {told:?}") };
        assert_eq!((error.code, outline.network.as_str()), (code, "n"), "{input}");
        let Logging { level, file } = &outline.logging;
        let path = file.as_ref().map(|file| file.path.as_path());
        assert_eq!((*level, path), (LogLevel::Error, Some(std::path::Path::new("/l"))));
        let names = [&outline.command, &outline.container_id, &outline.interface];
        assert_eq!(names, [variables[0].1, variables[1].1, "eth0"]);
    }
    assert_eq!(told(&good, "{").len(), 1);
    assert_eq!(told(&good, &input("1.0.0", "")).len(), 0);
}

#[test]
fn version_echoes_the_version_asked_in() {
    let (_, json) = call_for("VERSION", r#"{"cniVersion":"0.4.0"}"#);
    assert_eq!(json["cniVersion"], "0.4.0");
    assert_eq!(json["supportedVersions"].as_array().unwrap().len(), SpecVersion::ALL.len());
    assert_eq!(call_for("VERSION", r#"{"cniVersion":""}"#).1["cniVersion"], "0.1.0");
    assert_eq!(call_for("VERSION", "not json").1["cniVersion"], "1.1.0");
}

/// Standard output that nobody reads.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_nobody_learns_of_is_detached_again() {
    for (container, detached) in [("c", 1), ("panic", 1)] {
        let plugin = Fake::default();
        let find = |name: &str| {
            let value = match name {
                "CNI_COMMAND" => "ADD",
                "CNI_CONTAINERID" => container,
                "CNI_NETNS" => "/x",
                "CNI_IFNAME" => "eth0",
                _ => return None,
            };
            Some(value.into())
        };
        let input = br#"{"cniVersion":"1.0.0","name":"n"}"#;
        let io = ProcessIo {
            variable: &find,
            input: Some(&mut input.as_slice()),
            output: &mut Closed,
            messages: &mut Vec::new(),
            failed: &|_, _| {},
        };
        assert_eq!(run(&plugin, io), 1);
        assert_eq!(plugin.detached.get(), detached, "{container}");
    }
}

#[test]
fn a_panic_becomes_an_error() {
    let variables = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "panic"),
        ("CNI_NETNS", "/x"),
        ("CNI_IFNAME", "eth0"),
    ];
    let (status, output, _) = call(&variables, r#"{"cniVersion":"1.0.0","name":"n"}"#);
    let json: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((status, json["code"].as_u64()), (1, Some(100)));
    assert!(json["details"].as_str().unwrap().contains("told to"), "{json}");
}
