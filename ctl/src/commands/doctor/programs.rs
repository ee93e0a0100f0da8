//! The plugins that Weir's networks name.

use super::facts::{ExaminedNode, ProgramFacts};
use super::judgement::{Grade, Judgement};

const SUBJECT: &str = "plugins";

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    facts.programs.iter().map(of_program).collect()
}

fn of_program(program: &ProgramFacts) -> Judgement {
    let ProgramFacts { name, directories, cni_version, .. } = program;
    let file = program.file.display();
    let Some(path) = &program.path else {
        let what = format!("plugin {name} of {file} is in none of the directories of CNI_PATH");
        return Judgement::trouble(SUBJECT, directories, what).advise(format!(
            "install it there, correct the type in {file}, or name the runtime's directories with \
             --cni-path"
        ));
    };
    let path = path.display().to_string();
    let supports = match &program.supports {
        Ok(versions) => versions,
        Err(why) => {
            let what = format!("plugin {name} does not run: {why}");
            let advice = format!("install it again; try: CNI_COMMAND=VERSION {path} </dev/null");
            return Judgement::told(SUBJECT, Grade::Trouble, path, what).advise(advice);
        }
    };
    if !supports.contains(cni_version) {
        let what = format!("plugin {name} does not support cniVersion {cni_version} of {file}");
        let newest = supports.last().map(String::as_str).unwrap_or("none");
        return Judgement::trouble(SUBJECT, path, what).advise(format!(
            "install a newer {name}, or write \"cniVersion\": {newest:?}, which it supports"
        ));
    }
    let own = env!("CARGO_PKG_VERSION");
    match &program.release {
        Some(release) if release != own => {
            let what = format!("{name} has version {release}, and weirctl has {own}");
            Judgement::trouble(SUBJECT, path, what)
                .advise("install the programs of one release; weir before weir-ipam")
        }
        Some(release) => Judgement::good(SUBJECT, path, format!("{name} {release}")),
        None => Judgement::good(SUBJECT, path, format!("{name} supports cniVersion {cni_version}")),
    }
}
