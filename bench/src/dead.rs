//! Endpoints that are away.

use std::time::Duration;

use anyhow::Result;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How long the kernel takes at most to make a connection on loopback.
const SOON: Duration = Duration::from_millis(100);

/// A port on which nobody ever takes up a connection, so that the kernel drops those that come.
pub struct BlackHole {
    /// The port, on 127.0.0.1.
    pub port: u16,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    /// Fills the queue of a port.
    pub async fn open() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.1:0".parse()?)?;
        let listener = socket.listen(1)?;
        let at = listener.local_addr()?;
        let mut waiting = Vec::new();
        while let Ok(stream) = tokio::time::timeout(SOON, TcpStream::connect(at)).await {
            waiting.push(stream?);
        }
        Ok(Self { port: at.port(), _listener: listener, _waiting: waiting })
    }
}
