//! One request and its answer: tokens, passwords, redirects, limits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use countersign_clock::Clock;
use countersign_site::HostPort;
use futures_util::FutureExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body as _;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::http::response::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{Large, Place, small, whole};
use crate::budget::Budget;
use crate::connect::Connector;
use crate::credentials::Credentials;
use crate::endpoint::EndpointSettings;
use crate::health::Counts;
use crate::reach::{Probe, Reach};
use crate::token::{self, Challenge, MAX_TOKEN_BYTES};
use crate::{Error, Health, Limits, Timing};

/// Bytes that a connection reads ahead, and the most that the head of an answer may have.
const READ_AHEAD: usize = 32 * 1024;
/// Bytes of a body that says nothing here, and is read so that the connection can be used again.
const MAX_REST: usize = 64 * 1024;
/// How much longer what writes may take than what reads: an upload ends with a registry that hashes all of it.
const WRITES: u32 = 5;
/// How long an endpoint may say nothing before it is asked in the background whether it is there.
const DOUBT: Duration = Duration::from_millis(300);
/// How long a busy endpoint is left alone that does not say for how long.
const BUSY: Duration = Duration::from_secs(1);
/// The least that it is left alone.
const LEAST: Duration = Duration::from_millis(100);

/// An answer with a status of 200 and all of its body.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// To be held until the body is parsed.
    _large: Option<Place>,
}

/// The body of a request.
pub(crate) type RequestBody = BoxBody<Bytes, std::io::Error>;

/// A body that is all there.
pub(crate) fn content(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// A request, which may have to be sent twice: the second time with a token.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    /// What a token is remembered for.
    pub(crate) repository: &'a str,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: &'a (dyn Fn() -> RequestBody + Send + Sync),
}

impl<'a> Ask<'a> {
    /// A request without a body.
    pub(crate) fn new(method: Method, url: &'a str, repository: &'a str) -> Self {
        Self { method, url, repository, headers: Vec::new(), body: &|| content(Bytes::new()) }
    }

    /// Whether a token for reading is enough.
    fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

/// How an endpoint wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Bearer(Challenge),
    Basic,
}

/// Repositories and tokens that are remembered.
const MOST_REMEMBERED: usize = 4096;

/// Sends requests to one endpoint and to the hosts named for it.
pub(crate) struct Exchange {
    connector: Connector,
    client: Client<HttpsConnector<Connector>, RequestBody>,
    credentials: Option<Credentials>,
    headers: Vec<(HeaderName, HeaderValue)>,
    limits: Limits,
    timing: Timing,
    clock: Arc<dyn Clock>,
    /// Tokens by challenge, each with the moment until which it is good.
    tokens: Mutex<BTreeMap<Challenge, (String, Duration)>>,
    /// What was answered for a repository, for reading and for writing.
    ways: Mutex<BTreeMap<(String, bool), Way>>,
    reach: Arc<Reach>,
    slots: Slots,
    counts: Arc<Counts>,
}

/// Who may ask at a time: an endpoint's own places, and those that all endpoints share.
#[derive(Clone)]
struct Slots {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
    large: Large,
}

impl Slots {
    /// A place for one request, for as long as it is held. The endpoint's own comes first, so that
    /// who waits for a slow endpoint takes no place of others.
    async fn take(&self) -> [Option<OwnedSemaphorePermit>; 2] {
        let own = Arc::clone(&self.own).acquire_owned().await.ok();
        [own, Arc::clone(&self.all).acquire_owned().await.ok()]
    }
}

impl Exchange {
    pub(crate) fn new(
        connector: Connector,
        headers: Vec<(HeaderName, HeaderValue)>,
        settings: EndpointSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, countersign_https::TlsError> {
        let EndpointSettings { tls, limits, timing, credentials, places } = settings;
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(countersign_https::client(&tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector.clone());
        let client = |idle: usize| {
            Client::builder(hyper_util::rt::TokioExecutor::new())
                .pool_idle_timeout(Duration::from_secs(30))
                .pool_max_idle_per_host(idle)
                .http1_max_buf_size(READ_AHEAD)
                .pool_timer(hyper_util::rt::TokioTimer::new())
                .build(https.clone())
        };
        // Whether an endpoint can be reached is nothing that a connection from before could tell.
        let (client, asking) = (client(32), client(0));
        let url = format!("{}/v2/", connector.base());
        let probe: Probe = Arc::new(move || there(asking.clone(), url.clone(), timing.request).boxed());
        let own = Arc::new(Semaphore::new(limits.endpoint_requests));
        Ok(Self {
            connector,
            client,
            credentials,
            headers,
            limits,
            timing,
            clock,
            tokens: Mutex::default(),
            ways: Mutex::default(),
            reach: Reach::new(probe, timing.hold_off),
            slots: Slots { own, all: places.0, large: Large::default() },
            counts: Arc::default(),
        })
    }

    /// The same for somebody else: what one was given is nothing to the other.
    pub(crate) fn on_behalf(&self, credentials: Credentials) -> Self {
        Self {
            connector: self.connector.clone(),
            client: self.client.clone(),
            credentials: Some(credentials),
            headers: self.headers.clone(),
            limits: self.limits,
            timing: self.timing,
            clock: Arc::clone(&self.clock),
            tokens: Mutex::default(),
            ways: Mutex::default(),
            reach: Arc::clone(&self.reach),
            slots: self.slots.clone(),
            counts: Arc::clone(&self.counts),
        }
    }

    pub(crate) fn host(&self) -> &HostPort {
        self.connector.own()
    }

    /// How the endpoint of this name does.
    pub(crate) fn health(&self, name: &str) -> Health {
        Health { name: name.to_owned(), requests: self.counts.by_word(), held_off: self.reach.is_away() }
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
            let accept =
                HeaderValue::from_str(accept).map_err(|error| Error::Malformed(error.to_string()))?;
            let ask = Ask { headers: vec![(ACCEPT, accept)], ..Ask::new(Method::GET, url, repository) };
            let response = only_ok(self.authorised(&ask).await?)?;
            let headers = response.headers().clone();
            let (body, large) = whole(response, most, &self.slots.large).await?;
            Ok(Answer { headers, body, _large: large })
        };
        // Boxed, as each of those that it is handed on to has room for it.
        self.watched(Box::pin(get)).await
    }

    /// GETs a URL of the endpoint whose body is read piece by piece.
    pub(crate) async fn open(&self, url: &str, repository: &str) -> Result<Pieces, Error> {
        let ask = Ask::new(Method::GET, url, repository);
        let work = async { only_ok(self.authorised(&ask).await?) };
        let (response, place) = self.placed(self.timing.request, work).await?;
        Ok(Pieces { body: response.into_body(), idle: self.timing.request, _place: place })
    }

    /// Any other request; what it answers, without its body.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Parts, Error> {
        let work = async {
            let (parts, rest) = self.authorised(ask).await?.into_parts();
            // Read to its end, so that the connection can be used again.
            _ = Limited::new(rest, MAX_REST).collect().await;
            Ok(parts)
        };
        let most = if ask.reads() { self.timing.request } else { self.timing.request * WRITES };
        self.watched_for(most, work).await
    }

    /// Within the time for a request, and not while the endpoint is held off.
    async fn watched<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.watched_for(self.timing.request, work).await
    }

    async fn watched_for<T>(
        &self,
        most: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.placed(most, work).await.map(|(answer, _)| answer)
    }

    /// The answer, and the place that its body is read in.
    async fn placed<T>(
        &self,
        most: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<(T, [Option<OwnedSemaphorePermit>; 2]), Error> {
        // Waiting for a place is no time of the endpoint's.
        let told = || self.reach.held_off().map_or(Ok(()), Err);
        told()?;
        let place = self.slots.take().await;
        told()?;
        let answer = self.in_time(most, work).await;
        self.counts.count(&answer);
        match &answer {
            Err(why @ (Error::Dial(_) | Error::Tls(_))) => self.reach.lost(why),
            Ok(_) => self.reach.found(),
            Err(_) => {}
        }
        answer.map(|answer| (answer, place))
    }

    /// Within this time; earlier, if the endpoint turns out not to be there at all.
    async fn in_time<T>(
        &self,
        most: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        // Boxed, or every future that asks anything would be as large as all of this.
        let mut work = Box::pin(tokio::time::timeout(most, work));
        let in_time = |answer: Result<_, _>| answer.unwrap_or(Err(Error::Timeout));
        if let Ok(answer) = tokio::time::timeout(DOUBT, &mut work).await {
            return in_time(answer);
        }
        self.reach.doubt();
        tokio::select! {
            answer = work => in_time(answer),
            away = self.reach.away() => Err(away),
        }
    }

    /// A 2xx answer, asked for with a token or a password where the endpoint wants one.
    async fn authorised(&self, ask: &Ask<'_>) -> Result<Response<hyper::body::Incoming>, Error> {
        let key = (ask.repository.to_owned(), ask.reads());
        let known = lock(&self.ways).get(&key).cloned();
        let first = match &known {
            Some(way) => Some(self.authorization(way).await?),
            None => None,
        };
        let mut patience = self.timing.patience;
        let way = match self.follow(ask, first.as_ref(), &mut patience).await? {
            Reply::Response(response) => return Ok(*response),
            Reply::Challenge(Way::Basic) if known == Some(Way::Basic) => return Err(Error::Denied(401)),
            Reply::Challenge(way) => way,
        };
        if let (Way::Bearer(challenge), Some(_)) = (&way, &known) {
            // The token was not good any more, or not for this: one more try with a new one.
            lock(&self.tokens).remove(challenge);
        }
        let second = self.authorization(&way).await?;
        {
            let mut ways = lock(&self.ways);
            if ways.len() >= MOST_REMEMBERED {
                ways.clear();
            }
            ways.insert(key, way);
        }
        match self.follow(ask, Some(&second), &mut patience).await? {
            Reply::Response(response) => Ok(*response),
            Reply::Challenge(_) => Err(Error::Denied(401)),
        }
    }

    /// Follows redirects to hosts that are named; what says who asks goes to the endpoint itself alone.
    async fn follow(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
        patience: &mut Duration,
    ) -> Result<Reply, Error> {
        let url = ask.url;
        let mut uri: Uri = url.parse().map_err(|_| Error::Malformed(format!("`{url}` is not a URL")))?;
        for _ in 0..=self.limits.redirects {
            let own = self.connector.is_own(&self.connector.allowed(&uri)?);
            let response = self.patiently(ask, &uri, authorization.filter(|_| own), own, patience).await;
            let response = response.map_err(|error| if own { error } else { error.of_elsewhere(&uri) })?;
            match response.status() {
                status if status.is_success() => return Ok(Reply::Response(Box::new(response))),
                StatusCode::UNAUTHORIZED if own => {
                    return self
                        .challenge(response.headers())
                        .map(Reply::Challenge)
                        .ok_or(Error::Denied(401));
                }
                StatusCode::UNAUTHORIZED => return Err(Error::Denied(401)),
                status if !ask.reads() && is_refusal(status) => return Err(refused(response).await),
                StatusCode::FORBIDDEN => return Err(Error::Denied(403)),
                StatusCode::NOT_FOUND => return Err(Error::Absent),
                status if ask.reads() && [301, 302, 303, 307, 308].contains(&status.as_u16()) => {
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

    /// Asks again whoever says that it is busy, for as long as there is patience.
    async fn patiently(
        &self,
        ask: &Ask<'_>,
        uri: &Uri,
        authorization: Option<&HeaderValue>,
        own_headers: bool,
        patience: &mut Duration,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        loop {
            let response = self.send(ask, uri, authorization, own_headers).await?;
            let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
            let asked =
                response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let wait = asked.map_or(BUSY, Duration::from_secs).max(LEAST);
            if !busy.contains(&response.status()) || wait > *patience {
                return Ok(response);
            }
            *patience -= wait;
            tokio::time::sleep(wait).await;
        }
    }

    /// What a 401 asks for and can be given: a token, else a password where there is one.
    fn challenge(&self, headers: &HeaderMap) -> Option<Way> {
        let values: Vec<&str> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let basic = || {
            let asked = values.iter().any(|value| value.to_ascii_lowercase().contains("basic"));
            (asked && self.credentials.is_some()).then_some(Way::Basic)
        };
        Challenge::find(values.iter().copied()).map(Way::Bearer).or_else(basic)
    }

    async fn authorization(&self, way: &Way) -> Result<HeaderValue, Error> {
        let text = match (way, &self.credentials) {
            (Way::Bearer(challenge), _) => format!("Bearer {}", self.token(challenge).await?),
            (Way::Basic, Some(credentials)) if self.connector.is_private() => credentials.basic(),
            (Way::Basic, _) => return Err(Error::Denied(401)),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|error| Error::Malformed(error.to_string()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        uri: &Uri,
        authorization: Option<&HeaderValue>,
        own_headers: bool,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        Budget::request()?;
        let mut request = Request::builder().method(ask.method.clone()).uri(uri);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in self.headers.iter().filter(|_| own_headers) {
            request = request.header(name, value);
        }
        let body = (ask.body)();
        // hyper leaves out the length of what is empty, and some servers want it (RFC 9110, 8.6).
        if !ask.reads() && body.size_hint().exact() == Some(0) {
            request = request.header(CONTENT_LENGTH, 0);
        }
        let request = request.body(body).map_err(|error| Error::Malformed(error.to_string()))?;
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
        let own = self.connector.is_own(&self.connector.allowed(&url)?);
        let text = url.to_string();
        let ask = Ask {
            headers: vec![(ACCEPT, HeaderValue::from_static("application/json"))],
            ..Ask::new(Method::GET, &text, "")
        };
        // Whoever is named for the endpoint may know who asks; nobody over a line that others read, and
        // what a password buys does not go over one either.
        let private = self.connector.is_private() && self.connector.is_private_to(&url);
        let credentials = self.credentials.as_ref().filter(|_| private);
        let basic = credentials.and_then(|credentials| HeaderValue::from_str(&credentials.basic()).ok());
        let response = self.send(&ask, &url, basic.as_ref(), false).await;
        let response = response.map_err(|error| if own { error } else { error.of_elsewhere(&url) })?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(Error::Denied(status.as_u16()));
            }
            status => return Err(Error::Status(status.as_u16())),
        }
        let (token, seconds) = token::read(&small(response, MAX_TOKEN_BYTES).await?)?;
        // A little less than it lasts, so that it does not run out on the way.
        let until = now + Duration::from_secs(seconds.min(3600)) * 9 / 10;
        let mut tokens = lock(&self.tokens);
        if tokens.len() >= MOST_REMEMBERED {
            tokens.retain(|_, (_, until)| now < *until);
        }
        if tokens.len() < MOST_REMEMBERED {
            tokens.insert(challenge.clone(), (token.clone(), until));
        }
        Ok(token)
    }
}

enum Reply {
    Response(Box<Response<hyper::body::Incoming>>),
    Challenge(Way),
}

/// Whether a status says that what was sent is not taken; 408 and 429 say nothing of it.
fn is_refusal(status: StatusCode) -> bool {
    let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !later.contains(&status)
}

/// What an answer says about something that it does not take.
async fn refused(response: Response<hyper::body::Incoming>) -> Error {
    let status = response.status().as_u16();
    let said =
        small(response, MAX_REST).await.ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let first = |field: &str| {
        let text = said.as_ref().and_then(|said| said["errors"][0][field].as_str()).unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(200).collect::<String>()
    };
    Error::Refused { status, code: first("code"), message: first("message") }
}

/// Content comes with a 200 and nothing else.
fn only_ok(response: Response<hyper::body::Incoming>) -> Result<Response<hyper::body::Incoming>, Error> {
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(Error::Status(status.as_u16())),
    }
}

/// A body that is read piece by piece.
pub(crate) struct Pieces {
    body: hyper::body::Incoming,
    /// How long a piece may take.
    idle: Duration,
    _place: [Option<OwnedSemaphorePermit>; 2],
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

/// Whether anybody is there, whatever the answer. One who takes the connection and is slow to say
/// anything is there: what he is asked has a time of its own.
async fn there(
    client: Client<HttpsConnector<Connector>, RequestBody>,
    url: String,
    most: Duration,
) -> Result<(), Error> {
    let request = Request::get(url).body(content(Bytes::new()));
    let request = request.map_err(|error| Error::Malformed(error.to_string()))?;
    match tokio::time::timeout(most, client.request(request)).await {
        Ok(Err(error)) => match classify(&error) {
            away @ (Error::Dial(_) | Error::Tls(_)) => Err(away),
            _ => Ok(()),
        },
        Ok(Ok(_)) | Err(_) => Ok(()),
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
