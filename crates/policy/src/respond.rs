//! What rules say about a request.

/// How a rule came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// What it asks for holds, or what it changes was changed.
    Pass,
    /// What it asks for does not hold.
    Fail,
    /// It could not be evaluated.
    Error,
    /// It does not speak of this request after all.
    Skip,
}

impl Status {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Error => "error",
            Self::Skip => "skip",
        }
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It changes objects.
    Mutation,
    /// It judges objects.
    Validation,
    /// It asks who has signed their images.
    ImageVerify,
}

/// What a rule says about a request that it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The policy: `namespace/name` for a namespaced one.
    pub policy: String,
    /// The rule; `autogen-…` where it was written for controllers.
    pub rule: String,
    /// What it does.
    pub kind: Kind,
    /// How it came out.
    pub status: Status,
    /// Why, in upstream's words where it has some.
    pub message: String,
    /// Whether the rule enforces.
    pub enforce: bool,
    /// Whether the request is denied for it.
    pub denies: bool,
}

/// The words that whoever made a denied request is told (Kyverno `pkg/webhooks/utils/block.go`): a YAML
/// map of policies and rules.
pub(crate) fn blocked(resource: &str, responses: &[&Response]) -> String {
    let mut text = format!("\n\nresource {resource} was blocked due to the following policies \n\n");
    let mut policies: Vec<&str> = responses.iter().map(|response| response.policy.as_str()).collect();
    policies.sort_unstable();
    policies.dedup();
    for policy in policies {
        text.push_str(&format!("{policy}:\n"));
        for response in responses.iter().filter(|response| response.policy == policy) {
            text.push_str(&format!("  {}: {}\n", response.rule, quoted(&response.message)));
        }
    }
    text
}

/// A text as a scalar of YAML: in single quotes, or in double ones where it has several lines.
fn quoted(text: &str) -> String {
    if text.contains('\n') {
        return serde_json::Value::String(text.to_owned()).to_string();
    }
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_reads_as_people_know_it() {
        let response = |policy: &str, rule: &str, message: &str| Response {
            policy: policy.to_owned(),
            rule: rule.to_owned(),
            kind: Kind::Validation,
            status: Status::Fail,
            message: message.to_owned(),
            enforce: true,
            denies: true,
        };
        let responses =
            [response("b", "r", "it's wrong"), response("a", "x", "1\n2"), response("b", "s", "no")];
        let responses: Vec<&Response> = responses.iter().collect();
        insta::assert_snapshot!(blocked("Pod/apps/db", &responses), @r#"


        resource Pod/apps/db was blocked due to the following policies 

        a:
          x: "1\n2"
        b:
          r: 'it''s wrong'
          s: 'no'
        "#);
    }
}
