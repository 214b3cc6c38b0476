//! Bodies that are read whole.
//!
//! Each request may have a small answer in memory. Of larger ones each endpoint has one at a time, from
//! the moment that it is larger until it is parsed, and in the same memory each time: what a registry
//! can make this program take does not grow with how often it is asked, and whoever sends large answers
//! slowly is in the way of none but large ones of its own.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;
use crate::budget::Budget;

/// Bytes of an answer that is small.
const SMALL: usize = 64 * 1024;

/// Where an endpoint's large answers are read, one at a time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Large {
    places: Arc<Semaphore>,
    memory: Arc<Mutex<BytesMut>>,
}

/// The place of one large answer.
pub(crate) struct Place {
    memory: BytesMut,
    of: Arc<Mutex<BytesMut>>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Large {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(1)), memory: Arc::default() }
    }
}

impl Large {
    async fn place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let memory = std::mem::take(&mut *self.memory.lock().unwrap_or_else(PoisonError::into_inner));
        Some(Place { memory, of: Arc::clone(&self.memory), _permit: permit })
    }
}

impl Drop for Place {
    /// What was read into it may still be in use: then the next one gets other memory.
    fn drop(&mut self) {
        self.memory.clear();
        *self.of.lock().unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut self.memory);
    }
}

/// All of a body that is small by its nature.
pub(crate) async fn small(response: Response<Incoming>, most: usize) -> Result<Bytes, Error> {
    Ok(whole(response, most.min(SMALL), &Large::default()).await?.0)
}

/// All of a body, if it is not more than that, and its place if it is large; what is said to be more is
/// not begun.
pub(crate) async fn whole(
    response: Response<Incoming>,
    most: usize,
    large: &Large,
) -> Result<(Bytes, Option<Place>), Error> {
    let over = || Error::Limit(format!("the answer is larger than {most} bytes"));
    let mut body = response.into_body();
    let said = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if said > most {
        return Err(over());
    }
    let (mut read, mut place) = (BytesMut::with_capacity(said.min(SMALL)), None::<Place>);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::Broken(error.to_string()))?;
        // Trailers say nothing here.
        let Ok(piece) = frame.into_data() else { continue };
        let before = place.as_ref().map_or(read.len(), |place| place.memory.len());
        if before + piece.len() > most {
            return Err(over());
        }
        Budget::received(piece.len())?;
        if place.is_none() && before + piece.len() > SMALL {
            place = large.place().await;
            if let Some(place) = &mut place {
                // At once: what grows by and by is there twice each time.
                place.memory.reserve(most);
                place.memory.extend_from_slice(&std::mem::take(&mut read));
            }
        }
        place.as_mut().map_or(&mut read, |place| &mut place.memory).extend_from_slice(&piece);
    }
    let read = place.as_mut().map_or(read, |place| place.memory.split());
    Ok((read.freeze(), place))
}
