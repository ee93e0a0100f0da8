//! Every input of the corpus, among them all that ever broke something.

use std::path::PathBuf;

use weir_fuzz::Target;

/// The inputs of a target, by name.
fn inputs(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name());
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("a file"))).collect()
}

fn replay(target: Target) {
    let inputs = inputs(target);
    assert!(!inputs.is_empty());
    let mut broken = Vec::new();
    for (path, input) in inputs {
        if std::panic::catch_unwind(|| target.run(&input)).is_err() {
            broken.push(path);
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn stdin() {
    replay(Target::Stdin);
}

#[test]
fn environment() {
    replay(Target::Environment);
}

#[test]
fn prev_result() {
    replay(Target::PrevResult);
}

#[test]
fn store() {
    replay(Target::Store);
}

#[test]
fn block() {
    replay(Target::Block);
}

#[test]
fn pool_file() {
    replay(Target::PoolFile);
}

#[test]
fn selector() {
    replay(Target::Selector);
}

#[test]
fn bird() {
    replay(Target::Bird);
}

#[test]
fn changes_of_a_tree_are_the_same_for_the_same_seed() {
    for (_, input) in inputs(Target::Store) {
        for seed in 0..20 {
            assert_eq!(
                weir_fuzz::mutate::json(&input, seed),
                weir_fuzz::mutate::json(&input, seed)
            );
        }
    }
}
