use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// A body that says when it is given up.
struct Endless(Arc<AtomicBool>);

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, std::io::Error>>> {
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(Bytes::from(vec![0; 65536])))))
    }
}

#[tokio::test]
async fn t38_a_client_that_takes_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let given_up = Arc::new(AtomicBool::new(false));
    let body = Arc::clone(&given_up);
    let handler = move |_| {
        let body = Endless(Arc::clone(&body));
        async move { Response::new(body.boxed()) }
    };
    let limits = ServeLimits { stalled: Duration::from_millis(300), ..ServeLimits::DEFAULT };
    tokio::spawn(serve(listener, None, limits, handler, std::future::pending()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // Whoever reads, however slowly, is served.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.read_exact(&mut vec![0; 8 << 20]).await.unwrap();
    }
    assert!(!given_up.load(Ordering::SeqCst));
    for _ in 0..100 {
        if given_up.load(Ordering::SeqCst) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it waits for ever");
}
