//! The manual pages: every command has one, and the programs that read such pages find nothing
//! wrong with them.

use std::collections::BTreeSet;
use std::process::Command;

use clap::CommandFactory;
use tempfile::TempDir;

use super::*;
use crate::commands::man::{ManArgs, pages, run};

/// The pages in a directory of their own.
fn written() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    run(&ManArgs { directory: directory.path().to_owned() }, Cli::command()).unwrap();
    directory
}

fn names_below(command: &clap::Command, above: &str, found: &mut BTreeSet<String>) {
    for command in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        let name = format!("{above}-{}", command.get_name());
        names_below(command, &name, found);
        found.insert(format!("man8/{name}.8"));
    }
}

/// What a program says of a page on both of its outputs; it succeeds.
fn says(program: &str, arguments: &[&str], page: &Path) -> String {
    let mut command = Command::new(program);
    let output =
        command.args(arguments).arg(page).env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn every_command_and_plugin_has_its_page() {
    let mut expected: BTreeSet<_> =
        ["man5/weir-conflist.5", "man8/weir.8", "man8/weir-ipam.8", "man8/weirctl.8"]
            .map(str::to_owned)
            .into();
    names_below(&Cli::command(), "weirctl", &mut expected);
    let found = pages(Cli::command());
    let found: BTreeSet<_> = found.iter().map(|it| it.path().display().to_string()).collect();
    assert_eq!(found, expected);
}

#[test]
fn each_page_has_its_sections_with_something_in_them() {
    for page in pages(Cli::command()) {
        let sections = |name: &str| page.text.split(&format!(".SH {name}\n")).nth(1);
        let titles = ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "\"SEE ALSO\""];
        let status = (page.section == "8").then_some("\"EXIT STATUS\"");
        for title in titles.into_iter().chain(status) {
            let body = sections(title).unwrap_or_else(|| panic!("{}: {title}", page.name));
            let body = body.split("\n.SH ").next().unwrap();
            assert!(body.lines().any(|line| !line.starts_with('.')), "{}: {title}", page.name);
        }
        assert!(!page.text.contains('@'), "{}: a placeholder is left", page.name);
    }
}

#[test]
fn mandoc_and_groff_find_nothing_wrong() {
    let directory = written();
    for page in pages(Cli::command()) {
        let path = directory.path().join(page.path());
        let lint = says("mandoc", &["-T", "lint", "-W", "warning"], &path);
        // Pages have no date, so that two builds are alike; clap_mangen breaks a line twice
        // before a list of values.
        let known = ["missing date", "skipping paragraph macro: br"];
        let is_known = |line: &&str| known.iter().any(|it| line.contains(it));
        let lint: Vec<_> = lint.lines().filter(|line| !is_known(line)).collect();
        assert!(lint.is_empty(), "{lint:#?}");
        let groff = says("groff", &["-Kutf8", "-man", "-Tutf8", "-ww", "-z"], &path);
        assert_eq!(groff, "", "{}", page.name);
    }
}

#[test]
fn man_shows_a_command_s_page() {
    let directory = written();
    let page = |name: &str| {
        let shown = says("man", &["-l"], &directory.path().join(name));
        shown.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let shown = page("man8/weirctl-ipam-check.8");
    for text in
        ["weirctl-ipam-check - Compare blocks", "--repair", "weirctl ipam check -o report.json"]
    {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert!(!shown.contains("--etcd-key-file"), "{shown}");
    let shown = page("man5/weir-conflist.5");
    for text in ["etcd_ca_cert_file, etcd_cert_file, etcd_key_file", "Default: info"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
}
