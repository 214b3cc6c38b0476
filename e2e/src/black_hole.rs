//! An endpoint that is behind a wall.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How long a connection may take before it counts as one that is not answered.
const SOON: Duration = Duration::from_millis(100);

/// A port on which nobody ever takes up a connection, so that the kernel drops those that come.
pub struct BlackHole {
    /// Where it is on 127.0.0.1.
    pub port: u16,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    /// Opens one on a free port, and fills what the kernel keeps for it.
    pub async fn open() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let listener = socket.listen(1).unwrap();
        let at = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = tokio::time::timeout(SOON, TcpStream::connect(at)).await {
            waiting.push(stream.unwrap());
        }
        Self { port: at.port(), _listener: listener, _waiting: waiting }
    }
}
