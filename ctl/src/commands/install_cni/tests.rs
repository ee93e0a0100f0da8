use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [
    {"type": "weir", "nodename": "__NODE__", "ipam": {"type": "weir-ipam"}}]}"#;

/// A node and an image, each in a directory of its own.
struct World {
    directory: tempfile::TempDir,
    arguments: InstallArgs,
    variables: BTreeMap<String, String>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["image", "secret", "bin", "net.d"] {
            fs::create_dir(at(name)).unwrap();
        }
        let arguments = InstallArgs {
            from: Some(at("image")),
            bin_directory: at("bin"),
            conf: None,
            conf_name: "10-weir.conflist".to_owned(),
            certificates: Some(at("secret")),
            remove: false,
        };
        let variables = [(NETWORK_VARIABLE, NETWORK), ("NODE", "n1")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let world = Self { directory, arguments, variables };
        world.release("1");
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts the programs of a version into the image.
    fn release(&self, version: &str) {
        for name in PROGRAMS {
            let program = format!("{name} {version} {NODE_NAME_FILE}");
            fs::write(self.at("image").join(name), program).unwrap();
        }
    }

    fn run(&self) -> CommandResult {
        run(&self.arguments, &self.at("net.d"), &self.variables)
    }

    /// The lines, without the directory of this test.
    fn lines(&self) -> Vec<String> {
        let output =
            self.run().unwrap().replace(&format!("{}/", self.directory.path().display()), "");
        output.lines().map(str::to_owned).collect()
    }

    fn refusal(&self) -> String {
        let failure = self.run().unwrap_err();
        assert_eq!(failure.output, "", "nothing is done: {}", failure.message);
        assert!(failure.message.contains(';'), "it says what to do: {}", failure.message);
        failure.message
    }

    fn files(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(directory)).unwrap();
        let mut names: Vec<_> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.at(name)).unwrap().permissions().mode() & 0o7777
    }
}

#[test]
fn the_network_comes_last_and_nothing_is_done_twice() {
    let world = World::new();
    fs::write(world.at("secret/etcd-key"), "key").unwrap();
    let files = ["bin/weir", "bin/weir-ipam", "net.d/weir-tls/etcd-key", "net.d/10-weir.conflist"];
    assert_eq!(world.lines(), files.map(|file| format!("changed {file}")));
    assert_eq!(files.map(|file| world.mode(file)), [0o755, 0o755, 0o600, 0o600]);
    assert_eq!(world.mode("net.d/weir-tls"), 0o700);
    let text = fs::read_to_string(world.at("net.d/10-weir.conflist")).unwrap();
    assert!(text.contains(r#""nodename": "n1""#), "{text}");

    let before = files.map(|file| fs::metadata(world.at(file)).unwrap().ino());
    assert_eq!(world.lines(), files.map(|file| format!("unchanged {file}")));
    assert_eq!(files.map(|file| fs::metadata(world.at(file)).unwrap().ino()), before);
}

#[test]
fn who_has_the_old_program_open_keeps_it() {
    let world = World::new();
    world.run().unwrap();
    let mut old = File::open(world.at("bin/weir")).unwrap();
    world.release("2");
    assert_eq!(world.lines()[..2], ["changed bin/weir", "changed bin/weir-ipam"]);
    assert!(io::read_to_string(&mut old).unwrap().starts_with("weir 1"));
    assert!(fs::read_to_string(world.at("bin/weir")).unwrap().starts_with("weir 2"));
}

#[test]
fn what_a_killed_installer_left_goes() {
    let world = World::new();
    for name in ["bin/.weir.new", "bin/.weir-ipam.new", "net.d/.10-weir.conflist.new"] {
        fs::write(world.at(name), "half").unwrap();
    }
    world.run().unwrap();
    assert_eq!(world.files("bin"), ["weir", "weir-ipam"]);
    assert_eq!(world.files("net.d"), ["10-weir.conflist"]);
}

#[test]
fn wrong_permissions_are_corrected() {
    let world = World::new();
    world.run().unwrap();
    fs::set_permissions(world.at("bin/weir"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(world.lines()[0], "changed bin/weir");
    assert_eq!(world.mode("bin/weir"), 0o755);
}

#[test]
fn a_network_that_would_not_work_changes_nothing() {
    for (network, said) in [
        ("{", "not a network configuration"),
        (r#"{"name": "x", "cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}"#, "is Weir's"),
        (&NETWORK.replace("nodename", "nodenam"), "nodenam"),
        (&NETWORK.replace("__NODE__", "__NOWHERE__"), "variable NOWHERE is not set"),
        (&NETWORK.replace("__NODE__", "a b"), "nodename"),
    ] {
        let mut world = World::new();
        world.variables.insert(NETWORK_VARIABLE.to_owned(), network.to_owned());
        let message = world.refusal();
        assert!(message.contains(said), "{message}");
        assert_eq!(world.files("bin"), [""; 0], "{network}");
    }
}

#[test]
fn a_value_cannot_leave_its_string() {
    let variables = BTreeMap::from([("A".to_owned(), "\", \"mtu\": \"".to_owned())]);
    let filled = fill(r#"{"nodename": "__A__", "x": "__a__ ____ __B"}"#, &variables).unwrap();
    let json: serde_json::Value = serde_json::from_str(&filled).unwrap();
    assert_eq!(json["nodename"], "\", \"mtu\": \"");
    assert_eq!(json["x"], "__a__ ____ __B");
}

#[test]
fn places_that_are_not_what_they_should_be_are_refused() {
    let mut world = World::new();
    fs::write(world.at("file"), "").unwrap();
    symlink(world.at("bin"), world.at("link")).unwrap();
    for (place, said) in
        [("nowhere", "is missing"), ("file", "is not a directory"), ("link", "is a symbolic link")]
    {
        world.arguments.bin_directory = world.at(place);
        assert!(world.refusal().contains(said), "{place}");
    }
    world.arguments.bin_directory = world.at("bin");
    for name in ["../10-weir.conflist", "a/b.conflist", "weir", ".conf", "", "/x.conf"] {
        world.arguments.conf_name = name.to_owned();
        assert!(world.refusal().contains("--conf-name"), "{name}");
    }
    assert_eq!(world.files("bin"), [""; 0]);
}

#[test]
fn what_others_put_there_stays() {
    for name in ["bin/weir-ipam", "net.d/10-weir.conflist"] {
        let mut world = World::new();
        fs::write(world.at(name), r#"{"type": "ptp"}"#).unwrap();
        assert!(world.refusal().contains("is not a file of Weir's"), "{name}");
        assert!(!world.at("bin/weir").exists());
        world.arguments.remove = true;
        assert!(world.lines().contains(&format!("left {name}: it is not Weir's")));
        assert!(world.at(name).exists());
        fs::remove_file(world.at(name)).unwrap();
        symlink(world.at("image/weir"), world.at(name)).unwrap();
        world.arguments.remove = false;
        assert!(world.refusal().contains("is not a file of Weir's"), "{name}");
    }
}

#[test]
fn the_programs_are_weirs() {
    let world = World::new();
    fs::write(world.at("image/weir-ipam"), "half").unwrap();
    assert!(world.refusal().contains("image/weir-ipam is not a file of Weir's"));
    assert_eq!(world.files("bin"), [""; 0]);
}

#[test]
fn of_two_installers_one_waits_for_its_next_try() {
    let world = World::new();
    let _lock = lock(&world.at("bin")).unwrap();
    assert!(world.refusal().contains("another install-cni is at work"));
}

#[test]
fn without_a_network_only_the_plugins_are_installed() {
    let mut world = World::new();
    world.variables.clear();
    assert!(world.lines()[2].starts_with("No network was given"));
    assert_eq!(world.files("net.d"), [""; 0]);
}

#[test]
fn what_was_installed_is_removed_by_another_version() {
    let mut world = World::new();
    fs::write(world.at("secret/etcd-ca"), "ca").unwrap();
    world.run().unwrap();
    fs::write(world.at("net.d/20-other.conflist"), NETWORK).unwrap();
    world.release("2");
    world.arguments.remove = true;
    let lines = world.lines();
    assert_eq!(
        lines,
        ["removed net.d/10-weir.conflist", "left the plugins: net.d/20-other.conflist has them"]
    );
    fs::remove_file(world.at("net.d/20-other.conflist")).unwrap();
    let lines = world.lines();
    assert_eq!(
        lines[..3],
        ["absent net.d/10-weir.conflist", "removed bin/weir", "removed bin/weir-ipam"]
    );
    assert_eq!((world.files("bin"), world.files("net.d")), (Vec::new(), Vec::new()));
    assert!(world.lines().iter().all(|line| line.starts_with("absent ")), "again");
}
