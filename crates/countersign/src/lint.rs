//! `countersign policy lint`.

use anyhow::{Context as _, Result};
use countersign_policy::{Exception, Keys, Level, Surroundings, lint};
use countersign_signature::sign::{Scheme, Signer};
use serde_json::{Value, json};

use crate::cli::{Exit, LintArguments, Output};
use crate::trial::{self, files, name_of, namespace_of};

/// Looks through policies and exceptions, and prints what was found.
pub(crate) fn run(arguments: &LintArguments) -> Result<Exit> {
    let site = arguments.site.as_deref().map(crate::site::read).transpose()?;
    let keys = match arguments.site.as_deref() {
        Some(path) => trial::keys(Some(path))?,
        None => {
            // Whoever signs is not asked about.
            let nobody = Signer::generate(Scheme::EcdsaP256).context("a key that stands for others")?;
            Keys { stand_in: Some(nobody.public_pem()), ..Keys::default() }
        }
    };
    let (mut documents, mut from) = (Vec::new(), Vec::new());
    for path in &arguments.paths {
        for file in files(path)? {
            for document in trial::read(&file)? {
                if !is_known(&document) {
                    let kind = document["kind"].as_str().unwrap_or("a document without a kind");
                    crate::site::warn(&format!("{}: {kind} is left out", file.display()));
                    continue;
                }
                from.push(format!("{}: {}", file.display(), shown(&document)));
                documents.push(document);
            }
        }
    }
    let exception_namespaces = site.as_ref().map(|site| &site.exception_namespaces);
    let now = trial::moment().now;
    let found = lint(&documents, Surroundings { keys: &keys, exception_namespaces, now });
    print(arguments.output, &from, &found);
    let wrong = |level| level == Level::Error || arguments.strict;
    Ok(if found.iter().any(|lint| wrong(lint.level)) { Exit::Negative } else { Exit::Good })
}

fn is_known(document: &Value) -> bool {
    countersign_policy::load(document, &Keys::default()).is_some() || Exception::load(document).is_some()
}

fn shown(document: &Value) -> String {
    let kind = document["kind"].as_str().unwrap_or_default();
    match namespace_of(document) {
        "" => format!("{kind} {}", name_of(document)),
        namespace => format!("{kind} {namespace}/{}", name_of(document)),
    }
}

#[expect(clippy::print_stdout, reason = "stdout is for results")]
fn print(output: Output, from: &[String], found: &[countersign_policy::Lint]) {
    if output == Output::Json {
        let lint = |lint: &countersign_policy::Lint| json!({ "document": from[lint.document], "level": lint.level.word(), "path": lint.path, "message": lint.message });
        println!(
            "{}",
            json!({ "documents": from.len(), "findings": found.iter().map(lint).collect::<Vec<_>>() })
        );
        return;
    }
    for lint in found {
        println!("{}: {}: {}: {}", from[lint.document], lint.level.word(), lint.path, lint.message);
    }
    let count = |level| found.iter().filter(|lint| lint.level == level).count();
    println!("{} documents, {} errors, {} warnings", from.len(), count(Level::Error), count(Level::Warning));
}
