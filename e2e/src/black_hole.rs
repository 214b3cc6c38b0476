//! An endpoint that is behind a wall: for end-to-end tests, and by this very file for the benchmarks and the
//! verifier's tests.

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
    ///
    /// # Errors
    ///
    /// There is no port to be had.
    pub async fn open() -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let listener = socket.listen(1)?;
        let at = listener.local_addr()?;
        let mut waiting = Vec::new();
        while let Ok(stream) = tokio::time::timeout(SOON, TcpStream::connect(at)).await {
            waiting.push(stream?);
        }
        Ok(Self { port: at.port(), _listener: listener, _waiting: waiting })
    }
}
