//! Counts the requests that pass.

use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A TCP proxy before a plain-HTTP registry that notes every request line.
pub struct CountingProxy {
    /// Where it listens.
    pub port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

impl CountingProxy {
    /// Passes everything on to a port of this machine.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    pass(client, server, &noted).await;
                });
            }
        });
        Self { port: own, lines }
    }

    /// The request lines since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

async fn pass(client: TcpStream, server: TcpStream, noted: &Mutex<Vec<String>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    // GET has no body, so everything the client sends is lines.
    let (mut buffer, mut rest) = (vec![0; 16 * 1024], String::new());
    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
        rest.push_str(&String::from_utf8_lossy(&buffer[..length]));
        while let Some((line, after)) = rest.split_once("\r\n") {
            if line.ends_with("HTTP/1.1") {
                noted.lock().unwrap().push(line.to_owned());
            }
            rest = after.to_owned();
        }
        if to_server.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    back.abort();
}
