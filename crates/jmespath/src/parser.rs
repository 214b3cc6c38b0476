//! A Pratt parser over the tokens.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::Value;

use crate::functions::{self, Function, Kind};
use crate::lexer::{Token, syntax, tokens};
use crate::pattern::Pattern;
use crate::{Error, MAX_DEPTH, MAX_LENGTH};

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Expression {
    pub(crate) root: Node,
    text: String,
    needs_moment: bool,
}

/// Expressions with one text are one.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Expression {
    /// Parses an expression; `extensions` names functions beyond the dialect's own, which
    /// [`Scope::call`](crate::Scope::call) answers.
    pub fn parse(text: &str, extensions: &[&str]) -> Result<Self, Error> {
        if text.len() > MAX_LENGTH {
            return Err(Error::Limit("too long"));
        }
        let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, extensions, needs_moment: false };
        let (root, _) = parser.expression(0)?;
        match parser.peek() {
            Token::End => Ok(Self { root, text: text.to_owned(), needs_moment: parser.needs_moment }),
            _ => Err(parser.unexpected()),
        }
    }

    /// The text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it asks for the time or for randomness: where the scope has no
    /// [`Moment`](crate::Moment), such an expression has no value.
    pub fn needs_moment(&self) -> bool {
        self.needs_moment
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Current,
    Field(String),
    Literal(Value),
    Sub(Box<Node>, Box<Node>),
    Pipe(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Compare(Comparator, Box<Node>, Box<Node>),
    Index(Box<Node>, i64),
    Slice(Box<Node>, [Option<i64>; 3]),
    Flatten(Box<Node>),
    /// Elements of a list, each through the second.
    Project(Box<Node>, Box<Node>),
    /// Values of an object, each through the second.
    ProjectValues(Box<Node>, Box<Node>),
    /// Elements of a list for which the condition holds, each through the third.
    Filter(Box<Node>, Box<Node>, Box<Node>),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
    Call(Call),
}

/// A call of a function.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// `None` for an extension.
    pub(crate) function: Option<&'static Function>,
    /// The place of a reference is taken by `@`.
    pub(crate) arguments: Vec<Node>,
    /// The expression of `&expression`.
    pub(crate) reference: Option<Box<Node>>,
    /// The first argument compiled, where the function takes a pattern and it is a literal.
    pub(crate) pattern: Option<Arc<Pattern>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparator {
    /// Whether what is in this order compares so.
    pub(crate) fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

struct Parser<'a> {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    extensions: &'a [&'a str],
    needs_moment: bool,
}

/// A node and how tall it is: what is evaluated and dropped by recursion is bounded by it.
type Tree = (Node, usize);

/// The height of a node above others.
fn above(heights: impl IntoIterator<Item = usize>) -> Result<usize, Error> {
    let height = 1 + heights.into_iter().max().unwrap_or(0);
    if height > MAX_DEPTH { Err(Error::Limit("nested too deep")) } else { Ok(height) }
}

fn one(inner: Tree, make: impl FnOnce(Box<Node>) -> Node) -> Result<Tree, Error> {
    Ok((make(Box::new(inner.0)), above([inner.1])?))
}

fn two(left: Tree, right: Tree, make: impl FnOnce(Box<Node>, Box<Node>) -> Node) -> Result<Tree, Error> {
    Ok((make(Box::new(left.0), Box::new(right.0)), above([left.1, right.1])?))
}

const CURRENT: Tree = (Node::Current, 1);

/// How tightly a token binds what is on its left.
fn power(token: &Token) -> u8 {
    let Token::Symbol(symbol) = token else { return 0 };
    match *symbol {
        "|" => 1,
        "||" => 2,
        "&&" => 3,
        "==" | "!=" | "<" | "<=" | ">" | ">=" => 5,
        "[]" => 9,
        "[?" => 21,
        "." => 40,
        "[" => 55,
        _ => 0,
    }
}

/// Below this, a projection ends.
const PROJECTION_STOP: u8 = 10;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].1
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].1.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Error> {
        if self.is(symbol) {
            self.next();
            return Ok(());
        }
        Err(syntax(self.tokens[self.at].0, &format!("expected `{symbol}`")))
    }

    fn unexpected(&self) -> Error {
        let what = match self.peek() {
            Token::End => "the expression ends too early".to_owned(),
            Token::Symbol(symbol) => format!("unexpected `{symbol}`"),
            Token::Identifier(_) | Token::Quoted(_) => "unexpected name".to_owned(),
            Token::Literal(_) => "unexpected literal".to_owned(),
            Token::Number(number) => format!("unexpected `{number}`"),
        };
        syntax(self.tokens[self.at].0, &what)
    }

    fn expression(&mut self, right: u8) -> Result<Tree, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::Limit("nested too deep"));
        }
        let mut left = self.prefix()?;
        while right < power(self.peek()) {
            left = self.infix(left)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    fn prefix(&mut self) -> Result<Tree, Error> {
        match self.peek() {
            Token::Symbol("[]" | "[?") => return self.infix(CURRENT),
            Token::Symbol("[") if self.starts_index() => return self.infix(CURRENT),
            Token::End => return Err(self.unexpected()),
            _ => {}
        }
        let at = self.at;
        match self.next() {
            Token::Identifier(name) if self.is("(") => self.call(name),
            Token::Quoted(_) if self.is("(") => {
                Err(syntax(self.tokens[at].0, "the name of a function is not quoted"))
            }
            Token::Identifier(name) | Token::Quoted(name) => Ok((Node::Field(name), 1)),
            Token::Literal(value) => Ok((Node::Literal(value), 1)),
            Token::Symbol("@") => Ok(CURRENT),
            Token::Symbol("!") => one(self.expression(45)?, Node::Not),
            Token::Symbol("(") => {
                let inner = self.expression(0)?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("*") => two(CURRENT, self.projected(20)?, Node::ProjectValues),
            Token::Symbol("[") => self.multiselect_list(),
            Token::Symbol("{") => self.multiselect_object(),
            Token::Symbol("&") => Err(syntax(
                self.tokens[at].0,
                "an expression reference is an argument of some functions only",
            )),
            _ => {
                self.at = at;
                Err(self.unexpected())
            }
        }
    }

    fn starts_index(&self) -> bool {
        match self.tokens.get(self.at + 1).map(|(_, token)| token) {
            Some(Token::Number(_) | Token::Symbol(":")) => true,
            Some(Token::Symbol("*")) => {
                matches!(self.tokens.get(self.at + 2), Some((_, Token::Symbol("]"))))
            }
            _ => false,
        }
    }

    fn infix(&mut self, left: Tree) -> Result<Tree, Error> {
        let power_here = power(self.peek());
        let Token::Symbol(symbol) = self.next() else { return Err(self.unexpected()) };
        let comparator = match symbol {
            "|" => return two(left, self.expression(1)?, Node::Pipe),
            "||" => return two(left, self.expression(2)?, Node::Or),
            "&&" => return two(left, self.expression(3)?, Node::And),
            "." if self.is("*") => {
                self.next();
                return two(left, self.projected(20)?, Node::ProjectValues);
            }
            "." => return two(left, self.after_dot(power_here)?, Node::Sub),
            "[]" => {
                let right = self.projected(9)?;
                return two(one(left, Node::Flatten)?, right, Node::Project);
            }
            "[?" => {
                let condition = self.expression(0)?;
                self.expect("]")?;
                let right = self.projected(21)?;
                let height = above([left.1, condition.1, right.1])?;
                let boxed = |tree: Tree| Box::new(tree.0);
                return Ok((Node::Filter(boxed(left), boxed(condition), boxed(right)), height));
            }
            "[" => return self.bracket(left),
            "==" => Comparator::Equal,
            "!=" => Comparator::NotEqual,
            "<" => Comparator::Less,
            "<=" => Comparator::LessOrEqual,
            ">" => Comparator::Greater,
            ">=" => Comparator::GreaterOrEqual,
            _ => return Err(self.unexpected()),
        };
        let right = self.expression(5)?;
        two(left, right, |left, right| Node::Compare(comparator, left, right))
    }

    /// `[*]`, `[1]`, `[a:b:c]`.
    fn bracket(&mut self, left: Tree) -> Result<Tree, Error> {
        if self.is("*") {
            self.next();
            self.expect("]")?;
            return two(left, self.projected(20)?, Node::Project);
        }
        let mut parts = [None; 3];
        let mut part = 0;
        loop {
            match *self.peek() {
                Token::Number(number) if parts[part].is_none() => {
                    self.next();
                    parts[part] = Some(number);
                }
                Token::Symbol(":") if part < 2 => {
                    self.next();
                    part += 1;
                }
                _ => break,
            }
        }
        self.expect("]")?;
        match (part, parts[0]) {
            (0, Some(index)) => one(left, |left| Node::Index(left, index)),
            (0, None) => Err(self.unexpected()),
            _ => two(one(left, |left| Node::Slice(left, parts))?, self.projected(20)?, Node::Project),
        }
    }

    /// What each element of a projection goes through.
    fn projected(&mut self, right: u8) -> Result<Tree, Error> {
        if power(self.peek()) < PROJECTION_STOP {
            return Ok(CURRENT);
        }
        if self.is("[") || self.is("[?") {
            return self.expression(right);
        }
        self.expect(".")?;
        if self.is("*") {
            return self.expression(right);
        }
        self.after_dot(right)
    }

    fn after_dot(&mut self, right: u8) -> Result<Tree, Error> {
        match self.peek() {
            Token::Identifier(_) | Token::Quoted(_) => self.expression(right),
            Token::Symbol("[") => {
                self.next();
                self.multiselect_list()
            }
            Token::Symbol("{") => {
                self.next();
                self.multiselect_object()
            }
            _ => Err(self.unexpected()),
        }
    }

    fn multiselect_list(&mut self) -> Result<Tree, Error> {
        let (mut nodes, mut heights) = (Vec::new(), Vec::new());
        loop {
            let (node, height) = self.expression(0)?;
            nodes.push(node);
            heights.push(height);
            if !self.is(",") {
                break;
            }
            self.next();
        }
        self.expect("]")?;
        Ok((Node::List(nodes), above(heights)?))
    }

    fn multiselect_object(&mut self) -> Result<Tree, Error> {
        let (mut fields, mut heights) = (Vec::new(), Vec::new());
        loop {
            let at = self.at;
            let (Token::Identifier(name) | Token::Quoted(name)) = self.next() else {
                self.at = at;
                return Err(self.unexpected());
            };
            self.expect(":")?;
            let (node, height) = self.expression(0)?;
            fields.push((name, node));
            heights.push(height);
            if !self.is(",") {
                break;
            }
            self.next();
        }
        self.expect("}")?;
        Ok((Node::Object(fields), above(heights)?))
    }

    fn call(&mut self, name: String) -> Result<Tree, Error> {
        self.expect("(")?;
        let function =
            if self.extensions.contains(&name.as_str()) { None } else { Some(functions::find(&name)?) };
        let (mut arguments, mut heights, mut reference) = (Vec::new(), Vec::new(), None);
        while !self.is(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            let wanted = function.is_some_and(|function| function.takes(arguments.len(), Kind::Reference));
            if self.is("&") && wanted {
                self.next();
                let (node, height) = self.expression(0)?;
                reference = Some(Box::new(node));
                arguments.push(Node::Current);
                heights.push(height);
                continue;
            }
            if wanted {
                let message = format!("argument {} is an expression reference: `&`", arguments.len() + 1);
                return Err(Error::call(&name, message));
            }
            let (node, height) = self.expression(0)?;
            arguments.push(node);
            heights.push(height);
        }
        self.expect(")")?;
        let mut pattern = None;
        if let Some(function) = function {
            function.check_count(arguments.len())?;
            self.needs_moment |= function.needs_moment();
            if let (true, Some(Node::Literal(Value::String(text)))) =
                (function.takes_pattern(), arguments.first())
            {
                pattern = Some(Arc::new(Pattern::compile(text).map_err(|error| Error::call(&name, error))?));
            }
        }
        Ok((Node::Call(Call { name, function, arguments, reference, pattern }), above(heights)?))
    }
}
