//! A Pratt parser over the tokens.

use serde_json::Value;

use crate::lexer::{Token, syntax, tokens};
use crate::{Error, MAX_DEPTH, MAX_LENGTH, functions};

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    pub(crate) root: Node,
    text: String,
}

impl Expression {
    /// Parses an expression; `extension` names functions beyond the dialect's own.
    pub fn parse(text: &str, extensions: &[&str]) -> Result<Self, Error> {
        if text.len() > MAX_LENGTH {
            return Err(Error::Limit("too long"));
        }
        let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, extensions };
        let root = parser.expression(0)?;
        match parser.peek() {
            Token::End => Ok(Self { root, text: text.to_owned() }),
            _ => Err(parser.unexpected()),
        }
    }

    /// The text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[derive(Clone, Debug, PartialEq)]
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
    Call(String, Vec<Node>),
    /// `&expression`, an argument of functions like `sort_by`.
    Reference(Box<Node>),
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

struct Parser<'a> {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    extensions: &'a [&'a str],
}

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
            other => format!("unexpected {other:?}"),
        };
        syntax(self.tokens[self.at].0, &what)
    }

    fn expression(&mut self, right: u8) -> Result<Node, Error> {
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

    fn prefix(&mut self) -> Result<Node, Error> {
        let token = self.peek().clone();
        match token {
            Token::Identifier(name) => {
                self.next();
                if self.is("(") { self.call(name) } else { Ok(Node::Field(name)) }
            }
            Token::Quoted(name) => {
                self.next();
                Ok(Node::Field(name))
            }
            Token::Literal(value) => {
                self.next();
                Ok(Node::Literal(value))
            }
            Token::Symbol("@") => {
                self.next();
                Ok(Node::Current)
            }
            Token::Symbol("!") => {
                self.next();
                Ok(Node::Not(Box::new(self.expression(45)?)))
            }
            Token::Symbol("&") => {
                self.next();
                Ok(Node::Reference(Box::new(self.expression(0)?)))
            }
            Token::Symbol("(") => {
                self.next();
                let inner = self.expression(0)?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("*") => {
                self.next();
                let right = self.projected(20)?;
                Ok(Node::ProjectValues(Box::new(Node::Current), Box::new(right)))
            }
            Token::Symbol("[]" | "[?") => self.infix(Node::Current),
            Token::Symbol("[") if self.starts_index() => self.infix(Node::Current),
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

    fn starts_index(&self) -> bool {
        match self.tokens.get(self.at + 1).map(|(_, token)| token) {
            Some(Token::Number(_) | Token::Symbol(":")) => true,
            Some(Token::Symbol("*")) => {
                matches!(self.tokens.get(self.at + 2), Some((_, Token::Symbol("]"))))
            }
            _ => false,
        }
    }

    fn infix(&mut self, left: Node) -> Result<Node, Error> {
        let power_here = power(self.peek());
        let token = self.next();
        let Token::Symbol(symbol) = token else { return Err(self.unexpected()) };
        let left = Box::new(left);
        let compare = |comparator| {
            move |parser: &mut Self, left| {
                Ok(Node::Compare(comparator, left, Box::new(parser.expression(5)?)))
            }
        };
        match symbol {
            "|" => Ok(Node::Pipe(left, Box::new(self.expression(1)?))),
            "||" => Ok(Node::Or(left, Box::new(self.expression(2)?))),
            "&&" => Ok(Node::And(left, Box::new(self.expression(3)?))),
            "==" => compare(Comparator::Equal)(self, left),
            "!=" => compare(Comparator::NotEqual)(self, left),
            "<" => compare(Comparator::Less)(self, left),
            "<=" => compare(Comparator::LessOrEqual)(self, left),
            ">" => compare(Comparator::Greater)(self, left),
            ">=" => compare(Comparator::GreaterOrEqual)(self, left),
            "." if self.is("*") => {
                self.next();
                Ok(Node::ProjectValues(left, Box::new(self.projected(20)?)))
            }
            "." => Ok(Node::Sub(left, Box::new(self.after_dot(power_here)?))),
            "[]" => {
                let right = self.projected(9)?;
                Ok(Node::Project(Box::new(Node::Flatten(left)), Box::new(right)))
            }
            "[?" => {
                let condition = self.expression(0)?;
                self.expect("]")?;
                let right = if self.is("[]") { Node::Current } else { self.projected(21)? };
                Ok(Node::Filter(left, Box::new(condition), Box::new(right)))
            }
            "[" => self.bracket(left),
            _ => Err(self.unexpected()),
        }
    }

    /// `[*]`, `[1]`, `[a:b:c]`.
    fn bracket(&mut self, left: Box<Node>) -> Result<Node, Error> {
        if self.is("*") {
            self.next();
            self.expect("]")?;
            return Ok(Node::Project(left, Box::new(self.projected(20)?)));
        }
        let mut parts = [None; 3];
        let mut part = 0;
        loop {
            match self.peek().clone() {
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
            (0, Some(index)) => Ok(Node::Index(left, index)),
            (0, None) => Err(self.unexpected()),
            _ => Ok(Node::Project(Box::new(Node::Slice(left, parts)), Box::new(self.projected(20)?))),
        }
    }

    /// What each element of a projection goes through.
    fn projected(&mut self, right: u8) -> Result<Node, Error> {
        let token_power = power(self.peek());
        if token_power < PROJECTION_STOP {
            return Ok(Node::Current);
        }
        if self.is(".") {
            self.next();
            if self.is("*") {
                self.next();
                return Ok(Node::ProjectValues(Box::new(Node::Current), Box::new(self.projected(20)?)));
            }
            return self.after_dot(right);
        }
        if self.is("[") || self.is("[?") {
            return self.expression(right);
        }
        Err(self.unexpected())
    }

    fn after_dot(&mut self, right: u8) -> Result<Node, Error> {
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

    fn multiselect_list(&mut self) -> Result<Node, Error> {
        let mut nodes = vec![self.expression(0)?];
        while self.is(",") {
            self.next();
            nodes.push(self.expression(0)?);
        }
        self.expect("]")?;
        Ok(Node::List(nodes))
    }

    fn multiselect_object(&mut self) -> Result<Node, Error> {
        let mut fields = Vec::new();
        loop {
            let (Token::Identifier(name) | Token::Quoted(name)) = self.next() else {
                return Err(self.unexpected());
            };
            self.expect(":")?;
            fields.push((name, self.expression(0)?));
            if !self.is(",") {
                break;
            }
            self.next();
        }
        self.expect("}")?;
        Ok(Node::Object(fields))
    }

    fn call(&mut self, name: String) -> Result<Node, Error> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.is(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            arguments.push(self.expression(0)?);
        }
        self.expect(")")?;
        if !self.extensions.contains(&name.as_str()) {
            functions::check_arity(&name, arguments.len())?;
        }
        Ok(Node::Call(name, arguments))
    }
}
