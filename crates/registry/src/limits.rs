//! How much is taken in, and how long things may take.

use std::time::Duration;

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
    /// Requests on behalf of one image, over all endpoints, tokens and redirects included. Default 192.
    pub image_requests: usize,
    /// Bytes that are received on behalf of one image. Default 32 MiB.
    pub image_bytes: usize,
    /// Requests to one endpoint at a time; more wait. Default 16.
    pub endpoint_requests: usize,
    /// Requests to all endpoints at a time; more wait. Default 64.
    pub all_requests: usize,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        manifest_bytes: 4 << 20,
        referrers_pages: 8,
        referrers: 256,
        redirects: 3,
        image_requests: 192,
        image_bytes: 32 << 20,
        endpoint_requests: 16,
        all_requests: 64,
    };
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// To make a TCP connection. Default 1 s.
    pub dial: Duration,
    /// For a whole request, body included; for one that writes, five times as long. Default 4 s.
    pub request: Duration,
    /// How long between two probes of an endpoint that could not be dialled, and is asked nothing
    /// else meanwhile; zero: it is asked as before. Default 1 s.
    pub hold_off: Duration,
    /// How long all in all an endpoint that is busy (429, 503) is waited for before an answer counts. Default 0 s.
    pub patience: Duration,
}

impl Timing {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        dial: Duration::from_secs(1),
        request: Duration::from_secs(4),
        hold_off: Duration::from_secs(1),
        patience: Duration::ZERO,
    };
}
