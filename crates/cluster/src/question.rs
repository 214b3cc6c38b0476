//! A question to one DNS server.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};
use tokio::net::UdpSocket;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer by UDP.
const MAX_ANSWER: usize = 4096;

/// What a DNS server says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It leads to these addresses, in order.
    Addresses(Vec<IpAddr>),
    /// Something else, as `NXDOMAIN`.
    Code(String),
    /// Nothing that can be used: why.
    None(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(addresses) if addresses.is_empty() => f.write_str("no address"),
            Self::Addresses(addresses) => {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&all.join(", "))
            }
            Self::Code(code) => f.write_str(code),
            Self::None(why) => write!(f, "no answer: {why}"),
        }
    }
}

/// Asks a server for the addresses of a name: A records, and AAAA where `six`.
pub async fn ask(server: SocketAddr, name: &str, six: bool) -> Answer {
    let mut all = Vec::new();
    let kinds = [TYPE::A, TYPE::AAAA];
    for kind in &kinds[..if six { 2 } else { 1 }] {
        match tokio::time::timeout(PATIENCE, exchange(server, name, *kind)).await {
            Err(_) => return Answer::None("none in time".to_owned()),
            Ok(Err(why)) => return Answer::None(why),
            Ok(Ok(Answer::Addresses(found))) => all.extend(found),
            Ok(Ok(other)) => return other,
        }
    }
    all.sort();
    all.dedup();
    Answer::Addresses(all)
}

async fn exchange(server: SocketAddr, name: &str, kind: TYPE) -> Result<Answer, String> {
    let words = |error: &dyn fmt::Display| error.to_string();
    let question = {
        let name = Name::new(name).map_err(|error| words(&error))?;
        let mut packet = Packet::new_query(kind.into());
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
        packet.build_bytes_vec().map_err(|error| words(&error))?
    };
    let any =
        if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    // Only what comes from the server arrives at a connected socket.
    let socket = UdpSocket::bind((any, 0)).await.map_err(|error| words(&error))?;
    socket.connect(server).await.map_err(|error| words(&error))?;
    socket.send(&question).await.map_err(|error| words(&error))?;
    let mut buffer = vec![0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| words(&error))?;
        let answer = Packet::parse(&buffer[..length]).map_err(|error| words(&error))?;
        if answer.id() != u16::from(kind) || !answer.has_flags(PacketFlag::RESPONSE) {
            continue;
        }
        if answer.rcode() != RCODE::NoError {
            return Ok(Answer::Code(name_of(answer.rcode()).to_owned()));
        }
        let address = |data: &RData<'_>| match data {
            RData::A(found) => Some(IpAddr::V4(found.address.into())),
            RData::AAAA(found) => Some(IpAddr::V6(found.address.into())),
            _ => None,
        };
        return Ok(Answer::Addresses(answer.answers.iter().filter_map(|it| address(&it.rdata)).collect()));
    }
}

/// As `dig` names them.
fn name_of(code: RCODE) -> &'static str {
    match code {
        RCODE::NoError => "NOERROR",
        RCODE::FormatError => "FORMERR",
        RCODE::ServerFailure => "SERVFAIL",
        RCODE::NameError => "NXDOMAIN",
        RCODE::NotImplemented => "NOTIMP",
        RCODE::Refused => "REFUSED",
        _ => "an error",
    }
}
