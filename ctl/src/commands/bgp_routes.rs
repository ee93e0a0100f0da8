//! `weirctl bgp routes`: what this node announces and has learned by BGP, as its kernel has it.

use clap::Args;
use serde_json::json;
use weir_kernel::{BgpRoutes, Kernel};

use crate::output::{Style, boxed, json};
use crate::session::CommandResult;

/// Arguments of `weirctl bgp routes`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Reads this node's kernel, for which no privilege is needed.\n\n\
                  Examples:\n  weirctl bgp routes\n  weirctl bgp routes -o json")]
pub struct RoutesArgs {
    /// Print everything as JSON
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    pub output: Option<String>,
}

/// Shows the routes.
///
/// # Errors
/// The kernel cannot be read.
pub async fn run(arguments: &RoutesArgs, style: Style) -> CommandResult {
    let routes = Kernel::open()?.bgp_routes().await?;
    Ok(match arguments.output {
        Some(_) => json::document(&value(&routes)),
        None => text(&routes, style),
    })
}

fn value(routes: &BgpRoutes) -> serde_json::Value {
    let learned = |(prefix, next_hops)| json!({"prefix": prefix, "nextHops": next_hops});
    json!({
        "announced": routes.announced,
        "learned": routes.learned.iter().map(learned).collect::<Vec<_>>(),
    })
}

fn text(routes: &BgpRoutes, style: Style) -> String {
    let announced = routes.announced.iter().map(|prefix| vec![prefix.to_string()]).collect();
    let learned = routes.learned.iter().map(|(prefix, next_hops)| {
        let next_hops: Vec<String> = next_hops.iter().map(ToString::to_string).collect();
        vec![prefix.to_string(), next_hops.join(", ")]
    });
    let tables = [
        ("Announced by this node", &["PREFIX"][..], announced),
        ("Learned by BGP", &["PREFIX", "NEXT HOP"][..], learned.collect()),
    ];
    let table = |(title, header, rows): (&str, &[&str], Vec<Vec<String>>)| {
        let body = match rows.is_empty() {
            true => "Nothing.\n".to_owned(),
            false => boxed::table(header, &rows, style),
        };
        format!("{}\n{body}", style.title(title))
    };
    tables.map(table).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_printed() {
        let mut routes = BgpRoutes::default();
        assert_eq!(
            text(&routes, Style::default()),
            "Announced by this node\nNothing.\n\nLearned by BGP\nNothing.\n"
        );
        routes.announced.insert("10.1.0.0/26".parse().unwrap());
        let next_hops = ["172.31.1.1".parse().unwrap()].into();
        routes.learned.insert("10.1.0.64/26".parse().unwrap(), next_hops);
        let text = text(&routes, Style::default());
        assert!(text.contains("| 10.1.0.0/26 |\n"), "{text}");
        assert!(text.contains("| 10.1.0.64/26 | 172.31.1.1 |\n"), "{text}");
        assert_eq!(value(&routes)["learned"][0]["nextHops"][0], "172.31.1.1");
    }
}
