//! `match` and `exclude` (Kyverno `pkg/engine/utils/match.go`).

use countersign_reference::wildcard_match;
use serde_json::Value;

use crate::Review;
use crate::engine::{Fact, Facts, Want};
use crate::fields::{Fields, Notes};
use crate::kinds::KindPattern;

/// Which requests a rule speaks of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selector {
    any: Vec<Block>,
    all: Vec<Block>,
}

/// AND over its attributes, OR within each list.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    kinds: Vec<KindPattern>,
    names: Vec<String>,
    namespaces: Vec<String>,
    operations: Vec<String>,
    annotations: Vec<(String, String)>,
    labels: Option<LabelSelector>,
    namespace_labels: Option<LabelSelector>,
    who: Vec<Who>,
}

/// Who makes a request: one of the list has to.
#[derive(Clone, Debug, PartialEq)]
enum Who {
    Subjects(Vec<(String, String, String)>),
    Roles(&'static str, Vec<String>),
}

/// A label selector, with wildcards in keys and values of `matchLabels`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LabelSelector {
    labels: Vec<(String, String)>,
    expressions: Vec<(String, Operator, Vec<String>)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// What a selector is held against.
pub(crate) struct Against<'a> {
    pub(crate) review: &'a Review,
    pub(crate) facts: &'a Facts,
    /// Whether what it asks of users counts where nobody says who it is.
    pub(crate) excludes: bool,
}

/// What has to be known first.
pub(crate) type Selected = Result<bool, Want>;

impl Selector {
    pub(crate) fn read(value: Option<&Value>, path: &str, notes: &mut Notes) -> Self {
        let Some(value) = value else { return Self::default() };
        let mut fields = Fields::of(value, path, notes);
        let mut selector = Self::default();
        for (name, blocks) in [("any", &mut selector.any), ("all", &mut selector.all)] {
            for (index, block) in fields.list(name, notes).iter().enumerate() {
                let path = format!("{path}.{name}[{index}]");
                let mut filter = Fields::of(block, &path, notes);
                blocks.push(Block::read(&mut filter, &path, notes));
                filter.finish(notes);
            }
        }
        let legacy = ["resources", "subjects", "roles", "clusterRoles"];
        if legacy.iter().any(|name| value.get(name).is_some_and(|value| !value.is_null())) {
            selector.all.push(Block::read(&mut fields, path, notes));
        }
        fields.finish(notes);
        selector
    }

    /// Whether a pod could be selected, in some namespace.
    pub(crate) fn speaks_of_pods(&self) -> bool {
        let pods = |block: &Block| block.speaks_of("Pod");
        (self.any.is_empty() || self.any.iter().any(pods)) && self.all.iter().all(pods)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.any.is_empty() && self.all.is_empty()
    }

    #[expect(clippy::result_large_err, reason = "a want is moved once, to where it is answered")]
    pub(crate) fn selects(&self, against: &Against<'_>) -> Selected {
        if self.is_empty() {
            return Ok(false);
        }
        let mut any = self.any.is_empty();
        for block in &self.any {
            any = any || block.selects(against)?;
        }
        let mut all = any;
        for block in &self.all {
            all = all && block.selects(against)?;
        }
        Ok(all)
    }

    /// The kinds that are selected, each with the operations that are named for it: none, if any is meant.
    /// What names no kind speaks of what is asked about in any case.
    pub(crate) fn interests(&self) -> Vec<(&KindPattern, Vec<&str>)> {
        fn operations<'a>(blocks: &[&'a Block]) -> Vec<&'a str> {
            blocks.iter().flat_map(|block| &block.operations).map(String::as_str).collect()
        }
        let all: Vec<&Block> = self.all.iter().collect();
        let everywhere = all.iter().find(|block| !block.kinds.is_empty());
        if self.any.is_empty() {
            let kinds = everywhere.into_iter().flat_map(|block| &block.kinds);
            return kinds.map(|kind| (kind, operations(&all))).collect();
        }
        let mut found = Vec::new();
        for block in &self.any {
            let named = if block.kinds.is_empty() { everywhere } else { Some(&block) };
            // Those of `all` hold besides: asking too often is no harm.
            let own = operations(&[block]);
            let own = if own.is_empty() { operations(&all) } else { own };
            found.extend(named.into_iter().flat_map(|block| &block.kinds).map(|kind| (kind, own.clone())));
        }
        found
    }

    /// Whether each block that a request has to be in names kinds.
    pub(crate) fn names_kinds(&self) -> bool {
        let names = |block: &Block| !block.kinds.is_empty();
        (!self.any.is_empty() && self.any.iter().all(names)) || self.all.iter().any(names)
    }

    /// Whether a request could be selected, whatever the object says.
    pub(crate) fn could_select(&self, review: &Review) -> bool {
        let kinds = |block: &Block| {
            block.kinds.is_empty() || block.kinds.iter().any(|kind| kind.matches(&review.request))
        };
        let could = |block: &Block| kinds(block) && block.is_in(&review.namespace);
        !self.is_empty() && (self.any.is_empty() || self.any.iter().any(could)) && self.all.iter().all(could)
    }

    /// Whether each block is for namespaces that somebody has named: an author of pods chooses neither
    /// the namespaces that he may write to nor who he is, and everything else.
    pub(crate) fn is_bound(&self) -> bool {
        let bound = |block: &Block| {
            let open = |pattern: &String| pattern.chars().all(|c| c == '*' || c == '?');
            block.who.iter().any(Who::is_somebody)
                || (!block.namespaces.is_empty() && !block.namespaces.iter().any(open))
        };
        (!self.any.is_empty() && self.any.iter().all(bound)) || self.all.iter().any(bound)
    }
}

impl Block {
    fn read(fields: &mut Fields<'_>, path: &str, notes: &mut Notes) -> Self {
        let mut block = Self::default();
        if let Some(resources) = fields.take("resources") {
            block.read_resources(resources, &format!("{path}.resources"), notes);
        }
        let subjects = fields.list("subjects", notes);
        if !subjects.is_empty() {
            let mut read = Vec::new();
            for (index, subject) in subjects.iter().enumerate() {
                let path = format!("{path}.subjects[{index}]");
                let mut subject = Fields::of(subject, &path, notes);
                subject.known(&["apiGroup"]);
                let mut text = |name| subject.text(name, notes).unwrap_or_default().to_owned();
                read.push((text("kind"), text("name"), text("namespace")));
                subject.finish(notes);
            }
            block.who.push(Who::Subjects(read));
        }
        for name in ["roles", "clusterRoles"] {
            let roles = fields.texts(name, notes);
            if !roles.is_empty() {
                block.who.push(Who::Roles(name, roles));
            }
        }
        if block == Self::default() {
            notes.refuse(path, "selects nothing in particular: name kinds, names, namespaces or labels");
        }
        block
    }

    fn read_resources(&mut self, value: &Value, path: &str, notes: &mut Notes) {
        let mut fields = Fields::of(value, path, notes);
        self.names = fields.texts("names", notes);
        self.names.extend(fields.text("name", notes).map(ToOwned::to_owned));
        for kind in fields.texts("kinds", notes) {
            match KindPattern::parse(&kind) {
                Some(pattern) => self.kinds.push(pattern),
                None => notes.refuse(&format!("{path}.kinds"), format!("`{kind}` is no kind")),
            }
        }
        self.namespaces = fields.texts("namespaces", notes);
        self.operations = fields.texts("operations", notes);
        self.annotations = fields.strings("annotations", notes);
        self.labels = LabelSelector::read(fields.take("selector"), &format!("{path}.selector"), notes);
        let path = format!("{path}.namespaceSelector");
        self.namespace_labels = LabelSelector::read(fields.take("namespaceSelector"), &path, notes);
        fields.finish(notes);
    }

    #[expect(clippy::result_large_err, reason = "a want is moved once, to where it is answered")]
    fn selects(&self, against: &Against<'_>) -> Selected {
        let review = against.review;
        let name = review.object_name();
        let metadata = &review.current()["metadata"];
        let any =
            |patterns: &[String], text: &str| patterns.iter().any(|pattern| wildcard_match(pattern, text));
        let holds = (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.matches(&review.request)))
            && (self.names.is_empty() || any(&self.names, name))
            && (self.namespaces.is_empty() || any(&self.namespaces, place(review)))
            && (self.operations.is_empty() || self.operations.contains(&review.operation))
            && self.annotations.iter().all(|wanted| has(&metadata["annotations"], wanted))
            && self.labels.as_ref().is_none_or(|selector| selector.selects(&metadata["labels"]));
        if !holds {
            return Ok(false);
        }
        for who in &self.who {
            if !who.is_by(against)? {
                return Ok(false);
            }
        }
        match &self.namespace_labels {
            Some(selector) if review.kind != "Namespace" && !review.namespace.is_empty() => {
                let want = Want::Namespace { name: review.namespace.clone() };
                match against.facts.get(&want) {
                    Some(Fact::Value(Ok(labels))) => Ok(selector.selects(labels)),
                    // Who cannot say is not a reason to leave a rule out.
                    Some(_) => Ok(!against.excludes),
                    None => Err(want),
                }
            }
            // Labels of a Namespace are its own: `selector` speaks of these.
            Some(_) if review.kind == "Namespace" => Ok(false),
            _ => Ok(true),
        }
    }

    fn speaks_of(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|pattern| pattern.names(kind))
    }

    fn is_in(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|pattern| wildcard_match(pattern, namespace))
    }
}

/// The namespace of an object; of a Namespace its own name.
fn place(review: &Review) -> &str {
    if review.kind == "Namespace" { review.object_name() } else { &review.namespace }
}

/// Whether a map has an entry that matches, in key and value.
fn has(map: &Value, (key, value): &(String, String)) -> bool {
    map.as_object().is_some_and(|entries| {
        entries
            .iter()
            .any(|(k, v)| wildcard_match(key, k) && v.as_str().is_some_and(|v| wildcard_match(value, v)))
    })
}

impl Who {
    /// Whether they are people that somebody has named. Roles are none: whoever may bind one gives it away.
    fn is_somebody(&self) -> bool {
        let open = |pattern: &str| pattern.contains(['*', '?']);
        let everybody = ["system:authenticated", "system:unauthenticated", "system:serviceaccounts"];
        let is_anybody = |(kind, name, namespace): &(String, String, String)| {
            open(name) || open(namespace) || (kind == "Group" && everybody.contains(&name.as_str()))
        };
        match self {
            Self::Subjects(subjects) => !subjects.iter().any(is_anybody),
            Self::Roles(..) => false,
        }
    }

    /// Whether it is one of these. Where nobody says who makes a request, `match` asks for nobody, and
    /// `exclude` excludes nobody.
    #[expect(clippy::result_large_err, reason = "a want is moved once, to where it is answered")]
    fn is_by(&self, against: &Against<'_>) -> Selected {
        let Against { review, facts, excludes } = against;
        let user = &review.request["userInfo"];
        let username = user["username"].as_str().unwrap_or_default();
        let groups = || user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if username.is_empty() && review.request["roles"].is_null() {
            return Ok(!excludes);
        }
        Ok(match self {
            Self::Subjects(subjects) => subjects.iter().any(|(kind, name, namespace)| match kind.as_str() {
                "ServiceAccount" => {
                    wildcard_match(&format!("system:serviceaccount:{namespace}:{name}"), username)
                }
                "User" => wildcard_match(name, username),
                "Group" => groups().any(|group| wildcard_match(name, group)),
                _ => false,
            }),
            Self::Roles(field, roles) => {
                // The API server does not say it; a test does.
                let said = &review.request[*field];
                let want = || Want::Roles {
                    username: username.to_owned(),
                    groups: groups().map(str::to_owned).collect(),
                };
                let has = if said.is_null() {
                    match facts.get(&want()) {
                        Some(Fact::Value(Ok(found))) => &found[*field],
                        // Who cannot say is not a reason to leave a rule out.
                        Some(_) => return Ok(!excludes),
                        None => return Err(want()),
                    }
                } else {
                    said
                };
                let has = has.as_array().into_iter().flatten();
                has.filter_map(Value::as_str).any(|own| roles.iter().any(|role| wildcard_match(role, own)))
            }
        })
    }
}

impl LabelSelector {
    pub(crate) fn read(value: Option<&Value>, path: &str, notes: &mut Notes) -> Option<Self> {
        let mut fields = Fields::of(value?, path, notes);
        let mut selector = Self { labels: fields.strings("matchLabels", notes), expressions: Vec::new() };
        for (index, expression) in fields.list("matchExpressions", notes).iter().enumerate() {
            let path = format!("{path}.matchExpressions[{index}]");
            let mut expression = Fields::of(expression, &path, notes);
            let key = expression.text("key", notes).unwrap_or_default().to_owned();
            let operator = match expression.text("operator", notes) {
                Some("In") => Some(Operator::In),
                Some("NotIn") => Some(Operator::NotIn),
                Some("Exists") => Some(Operator::Exists),
                Some("DoesNotExist") => Some(Operator::DoesNotExist),
                other => {
                    let other = other.unwrap_or_default();
                    let wanted = "`In`, `NotIn`, `Exists` or `DoesNotExist`";
                    notes.refuse(&format!("{path}.operator"), format!("`{other}` is not {wanted}"));
                    None
                }
            };
            let values = expression.texts("values", notes);
            expression.finish(notes);
            selector.expressions.extend(operator.map(|operator| (key, operator, values)));
        }
        fields.finish(notes);
        if selector == Self::default() {
            notes.refuse(path, "selects everything: leave it out, or name labels");
        }
        Some(selector)
    }

    pub(crate) fn selects(&self, labels: &Value) -> bool {
        let holds = |(key, operator, values): &(String, Operator, Vec<String>)| {
            let value = labels[key].as_str();
            let inside = value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
            match operator {
                Operator::In => inside,
                Operator::NotIn => !inside,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        };
        self.labels.iter().all(|wanted| has(labels, wanted)) && self.expressions.iter().all(holds)
    }
}

/// The blocks of `match` or `exclude` in all three forms, each with its path.
pub(crate) fn blocks<'a>(value: &'a Value, path: &str) -> Vec<(&'a Value, String)> {
    let mut found = Vec::new();
    for list in ["any", "all"] {
        for (index, block) in value[list].as_array().into_iter().flatten().enumerate() {
            found.push((block, format!("{path}.{list}[{index}]")));
        }
    }
    if !value["resources"].is_null() {
        found.push((value, path.to_owned()));
    }
    found
}
