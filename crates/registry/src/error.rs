//! What can go wrong at an endpoint, by what follows from it.

use std::fmt;

use countersign_reference::Digest;
use countersign_site::HostPort;
use hyper::Uri;

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It is not there: a definite answer.
    Absent,
    /// We may not look (401, 403), or what is sent is not taken.
    Denied,
    /// No answer: dial, TLS, timeout, 429, 5xx.
    Unreachable,
    /// An answer that breaks the protocol or contradicts itself.
    Malformed,
    /// We do not go there, or not that far.
    Refused,
}

/// Why a request has no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// 404.
    Absent,
    /// 401 or 403.
    Denied(u16),
    /// The connection could not be made.
    Dial(String),
    /// TLS could not be established.
    Tls(String),
    /// It failed so a moment ago, and is not tried again yet.
    HeldOff(Box<Self>),
    /// Where the endpoint sends to could not be reached, which says nothing of the endpoint.
    Elsewhere {
        /// Whom it sends to.
        host: String,
        /// Why not.
        why: Box<Self>,
    },
    /// Time was over.
    Timeout,
    /// Another status: 429, 5xx and whatever is unexpected.
    Status(u16),
    /// What was sent is not taken.
    Refused {
        /// The status.
        status: u16,
        /// The code that says why (distribution-spec, "Error Codes"); empty where there is none.
        code: String,
        /// What is said about it.
        message: String,
    },
    /// The connection broke.
    Broken(String),
    /// An answer that breaks the protocol.
    Malformed(String),
    /// The content is not what was asked for.
    Mismatch {
        /// What was asked for.
        wanted: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// A host that nothing names.
    HostNotListed(HostPort),
    /// A limit was reached.
    Limit(String),
    /// What is to be sent cannot be read here.
    Local(String),
}

impl Error {
    /// The same where somebody else was asked than the endpoint: that this one could not be reached
    /// says nothing of the endpoint.
    pub(crate) fn of_elsewhere(self, uri: &Uri) -> Self {
        match self {
            why @ (Self::Dial(_) | Self::Tls(_)) => {
                let host = uri.authority().map(ToString::to_string).unwrap_or_default();
                Self::Elsewhere { host, why: Box::new(why) }
            }
            other => other,
        }
    }

    /// What follows from it.
    pub fn class(&self) -> Class {
        match self {
            Self::Absent => Class::Absent,
            Self::Denied(_) | Self::Refused { .. } => Class::Denied,
            Self::Dial(_)
            | Self::Tls(_)
            | Self::HeldOff(_)
            | Self::Elsewhere { .. }
            | Self::Timeout
            | Self::Status(_)
            | Self::Broken(_)
            | Self::Local(_) => Class::Unreachable,
            Self::Malformed(_) | Self::Mismatch { .. } => Class::Malformed,
            Self::HostNotListed(_) | Self::Limit(_) => Class::Refused,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("not there (404)"),
            Self::Denied(status) => write!(f, "it does not let us look ({status})"),
            Self::Dial(why) => write!(f, "cannot connect: {why}"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::Elsewhere { host, why } => write!(f, "it sends to {host}: {why}"),
            Self::HeldOff(why) => write!(f, "could not be reached a moment ago: {why}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Status(status) => write!(f, "it answered {status}"),
            Self::Refused { status, code, message } => {
                write!(f, "it does not take it ({status}")?;
                let parts = [(" ", code, ")"), (": ", message, "")];
                parts.iter().try_for_each(|(before, part, after)| {
                    if part.is_empty() { f.write_str(after) } else { write!(f, "{before}{part}{after}") }
                })
            }
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
            Self::Malformed(why) => write!(f, "malformed answer: {why}"),
            Self::Mismatch { wanted, found } => write!(f, "asked for {wanted}, received content of {found}"),
            Self::HostNotListed(host) => write!(f, "it points to {host}, which nothing names for it"),
            Self::Limit(what) => f.write_str(what),
            Self::Local(why) => write!(f, "cannot read what is to be sent: {why}"),
        }
    }
}

impl std::error::Error for Error {}
