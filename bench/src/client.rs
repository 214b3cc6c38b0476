//! A client that costs little: it shares two cores with the server that it measures.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use countersign_https::ClientTls;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One keep-alive connection.
pub struct Connection<S = TlsStream<TcpStream>> {
    stream: S,
    buffer: Vec<u8>,
}

/// The length that the head of an answer gives, and where its body begins.
struct Head {
    start: usize,
    length: usize,
}

/// A whole request, ready to be sent again and again.
pub fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

impl Connection<TcpStream> {
    /// Connects to a port of 127.0.0.1, without TLS.
    pub async fn open_plain(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }
}

impl Connection {
    /// Connects to a port of 127.0.0.1, whose certificate this CA has signed.
    pub async fn open(port: u16, ca_pem: &str) -> Result<Self> {
        let tls = ClientTls { ca_pem: vec![ca_pem.to_owned()], ..ClientTls::default() };
        let connector = TlsConnector::from(Arc::new(countersign_https::client(&tls)?));
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        Ok(Self { stream: connector.connect(name, stream).await?, buffer: Vec::new() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Sends a request and answers with the body of a 200.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<&[u8]> {
        let Head { start, length } = self.head(request).await?;
        while self.buffer.len() < start + length {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server closed the connection");
        }
        Ok(&self.buffer[start..start + length])
    }

    /// Sends a request, and counts the bytes of its answer instead of keeping them.
    pub async fn drain(&mut self, request: &[u8]) -> Result<usize> {
        let Head { start, length } = self.head(request).await?;
        let mut left = length - (self.buffer.len() - start);
        self.buffer.resize(256 << 10, 0);
        while left > 0 {
            let most = left.min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..most]).await?;
            ensure!(read > 0, "the server closed the connection");
            left -= read;
        }
        Ok(length)
    }

    async fn head(&mut self, request: &[u8]) -> Result<Head> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server closed the connection");
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(start) = response.parse(&self.buffer)? else { continue };
            if response.code != Some(200) {
                bail!("the server answered with status {:?}", response.code);
            }
            let length = response
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok())
                .context("the answer has no length")?;
            return Ok(Head { start, length });
        }
    }
}
