//! A client that costs little: it shares two cores with the server that it measures.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use countersign_https::ClientTls;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One keep-alive connection over TLS.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// A whole request, ready to be sent again and again.
pub fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
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

    /// Sends a request and answers with the body of a 200.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server closed the connection");
            let mut headers = [httparse::EMPTY_HEADER; 16];
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
            if self.buffer.len() >= start + length {
                return Ok(&self.buffer[start..start + length]);
            }
        }
    }
}
