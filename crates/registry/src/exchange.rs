//! One request and its answer: token dance, redirects, limits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use countersign_clock::Clock;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;

use crate::Error;
use crate::connect::Connector;
use crate::token::{self, Challenge, MAX_TOKEN_BYTES};

/// How much of a registry's answers is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a manifest or an index. Default 4 MiB.
    pub manifest_bytes: usize,
    /// Pages of a referrers list. Default 8.
    pub referrers_pages: usize,
    /// Entries of a referrers list, over all pages. Default 256.
    pub referrers: usize,
    /// Redirects of one request. Default 3.
    pub redirects: usize,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Self =
        Self { manifest_bytes: 4 << 20, referrers_pages: 8, referrers: 256, redirects: 3 };
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// To make a TCP connection. Default 1 s.
    pub dial: Duration,
    /// For a whole request, body included. Default 4 s.
    pub request: Duration,
    /// How long an endpoint that could not be dialled is not tried again. Default 2 s.
    pub hold_off: Duration,
}

impl Timing {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        dial: Duration::from_secs(1),
        request: Duration::from_secs(4),
        hold_off: Duration::from_secs(2),
    };
}

/// An answer with a status of 200 and all of its body.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Sends requests to one endpoint and to the hosts named for it.
pub(crate) struct Exchange {
    connector: Connector,
    client: Client<HttpsConnector<Connector>, Empty<Bytes>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    limits: Limits,
    timing: Timing,
    clock: Arc<dyn Clock>,
    /// Tokens by challenge, each with the moment until which it is good.
    tokens: Mutex<BTreeMap<Challenge, (String, Duration)>>,
    /// The challenge last met for each scope-giving path prefix is not known before asking;
    /// what was answered for a repository is remembered instead.
    challenges: Mutex<BTreeMap<String, Challenge>>,
    held_until: Mutex<Option<Duration>>,
}

impl Exchange {
    pub(crate) fn new(
        connector: Connector,
        tls: &countersign_https::ClientTls,
        headers: Vec<(HeaderName, HeaderValue)>,
        limits: Limits,
        timing: Timing,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, countersign_https::TlsError> {
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(countersign_https::client(tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector.clone());
        let client = Client::builder(hyper_util::rt::TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(32)
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(https);
        Ok(Self {
            connector,
            client,
            headers,
            limits,
            timing,
            clock,
            tokens: Mutex::default(),
            challenges: Mutex::default(),
            held_until: Mutex::default(),
        })
    }

    /// GETs a URL of the endpoint, whole. `repository` is what a token is remembered for.
    pub(crate) async fn get(
        &self,
        url: &str,
        repository: &str,
        accept: &str,
        most: usize,
    ) -> Result<Answer, Error> {
        let get = async {
            let response = self.authorised(url, repository, accept).await?;
            let headers = response.headers().clone();
            Ok(Answer { headers, body: body(response, most).await? })
        };
        self.watched(get).await
    }

    /// GETs a URL of the endpoint whose body is read piece by piece.
    pub(crate) async fn open(&self, url: &str, repository: &str) -> Result<Pieces, Error> {
        let response = self.watched(self.authorised(url, repository, "*/*")).await?;
        Ok(Pieces { body: response.into_body(), idle: self.timing.request })
    }

    /// Within the time for a request, and not while the endpoint is held off.
    async fn watched<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if lock(&self.held_until).is_some_and(|until| self.clock.monotonic() < until) {
            return Err(Error::HeldOff);
        }
        let answer = tokio::time::timeout(self.timing.request, work).await.unwrap_or(Err(Error::Timeout));
        match &answer {
            Err(Error::Dial(_) | Error::Tls(_)) => {
                *lock(&self.held_until) = Some(self.clock.monotonic() + self.timing.hold_off);
            }
            Ok(_) => *lock(&self.held_until) = None,
            Err(_) => {}
        }
        answer
    }

    async fn authorised(
        &self,
        url: &str,
        repository: &str,
        accept: &str,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        let known = lock(&self.challenges).get(repository).cloned();
        let mut token = None;
        if let Some(challenge) = known {
            token = Some(self.token(&challenge).await?);
        }
        let challenge = match self.follow(url, accept, token.as_deref()).await? {
            Reply::Response(response) => return Ok(*response),
            Reply::Challenge(challenge) if token.is_none() => challenge,
            Reply::Challenge(challenge) => {
                // The token was not good any more, or not for this: one more try with a new one.
                lock(&self.tokens).remove(&challenge);
                challenge
            }
        };
        let token = self.token(&challenge).await?;
        lock(&self.challenges).insert(repository.to_owned(), challenge);
        match self.follow(url, accept, Some(&token)).await? {
            Reply::Response(response) => Ok(*response),
            Reply::Challenge(_) => Err(Error::Denied(401)),
        }
    }

    /// Follows redirects to hosts that are named; a token stays with the host it was made for.
    async fn follow(&self, url: &str, accept: &str, token: Option<&str>) -> Result<Reply, Error> {
        let mut uri: Uri = url.parse().map_err(|_| Error::Malformed(format!("`{url}` is not a URL")))?;
        let first = self.connector.allowed(&uri)?;
        for _ in 0..=self.limits.redirects {
            let same_host = self.connector.allowed(&uri)? == first;
            let response = self.send(&uri, accept, token.filter(|_| same_host), same_host).await?;
            match response.status() {
                StatusCode::OK => return Ok(Reply::Response(Box::new(response))),
                StatusCode::NOT_FOUND => return Err(Error::Absent),
                StatusCode::UNAUTHORIZED if same_host => {
                    let values = response.headers().get_all(WWW_AUTHENTICATE);
                    let challenge = Challenge::find(values.iter().filter_map(|value| value.to_str().ok()));
                    return challenge.map(Reply::Challenge).ok_or(Error::Denied(401));
                }
                status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                    return Err(Error::Denied(status.as_u16()));
                }
                status if [301, 302, 303, 307, 308].contains(&status.as_u16()) => {
                    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                    let location =
                        location.ok_or_else(|| Error::Malformed("a redirect without a target".to_owned()))?;
                    uri = resolve(&uri, location)?;
                }
                status => return Err(Error::Status(status.as_u16())),
            }
        }
        Err(Error::Limit(format!("more than {} redirects", self.limits.redirects)))
    }

    async fn send(
        &self,
        uri: &Uri,
        accept: &str,
        token: Option<&str>,
        own_headers: bool,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        let mut request = Request::builder().method(Method::GET).uri(uri).header(ACCEPT, accept);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in self.headers.iter().filter(|_| own_headers) {
            request = request.header(name, value);
        }
        let request = request.body(Empty::new()).map_err(|error| Error::Malformed(error.to_string()))?;
        self.client.request(request).await.map_err(|error| classify(&error))
    }

    async fn token(&self, challenge: &Challenge) -> Result<String, Error> {
        let now = self.clock.monotonic();
        let kept = lock(&self.tokens)
            .get(challenge)
            .filter(|(_, until)| now < *until)
            .map(|(token, _)| token.clone());
        if let Some(token) = kept {
            return Ok(token);
        }
        let url: Uri = challenge
            .url()
            .parse()
            .map_err(|_| Error::Malformed("the token realm is not a URL".to_owned()))?;
        self.connector.allowed(&url)?;
        let response = self.send(&url, "application/json", None, false).await?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(Error::Denied(status.as_u16()));
            }
            status => return Err(Error::Status(status.as_u16())),
        }
        let (token, seconds) = token::read(&body(response, MAX_TOKEN_BYTES).await?)?;
        // A little less than it lasts, so that it does not run out on the way.
        let until = now + Duration::from_secs(seconds.min(3600)) * 9 / 10;
        lock(&self.tokens).insert(challenge.clone(), (token.clone(), until));
        Ok(token)
    }
}

enum Reply {
    Response(Box<Response<hyper::body::Incoming>>),
    Challenge(Challenge),
}

/// A body that is read piece by piece.
pub(crate) struct Pieces {
    body: hyper::body::Incoming,
    /// How long a piece may take.
    idle: Duration,
}

impl Pieces {
    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.body.frame()).await;
            match frame.map_err(|_| Error::Timeout)? {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error::Broken(error.to_string())),
                // Trailers say nothing here.
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }
}

/// All of a body, if it is not more than that.
async fn body(response: Response<hyper::body::Incoming>, most: usize) -> Result<Bytes, Error> {
    match Limited::new(response.into_body(), most).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Error::Limit(format!("the answer is larger than {most} bytes")))
        }
        Err(error) => Err(Error::Broken(error.to_string())),
    }
}

/// An absolute URL, or a path on the same host.
pub(crate) fn resolve(base: &Uri, location: &str) -> Result<Uri, Error> {
    let bad = || Error::Malformed("a link that is not a URL".to_owned());
    if location.starts_with('/') && !location.starts_with("//") {
        let mut parts = base.clone().into_parts();
        parts.path_and_query = Some(location.parse().map_err(|_| bad())?);
        return Uri::from_parts(parts).map_err(|_| bad());
    }
    location.parse().map_err(|_| bad())
}

/// The connector's own error inside the client's, or what kind of failure it was.
fn classify(error: &hyper_util::client::legacy::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut innermost = error.to_string();
    while let Some(inner) = cause {
        if let Some(own) = inner.downcast_ref::<Error>() {
            return own.clone();
        }
        if let Some(tls) = inner.downcast_ref::<countersign_https::RustlsError>() {
            return Error::Tls(tls.to_string());
        }
        innermost = inner.to_string();
        // An I/O error gives the source of what it wraps, not what it wraps.
        let wrapped = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = wrapped.map_or_else(|| inner.source(), |wrapped| Some(wrapped));
    }
    if error.is_connect() { Error::Dial(innermost) } else { Error::Broken(innermost) }
}

/// What is guarded is replaced whole, so a poisoned lock guards nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
