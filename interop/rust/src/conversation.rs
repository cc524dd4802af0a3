//! What is asked of a peer: one stream of ours for a sub-protocol, on which messages go out and answers come back in any
//! order; and an answer in parts, which has a stream of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::io::{BufReader, ReadHalf, WriteHalf};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, Stream};
use tokio::sync::oneshot;

use crate::envelope::{ERROR_TYPE, Message, ONE_WAY, REQUEST, RESPONSE};
use crate::messages::{Ended, Messages, To, send};
use crate::rules::{Reason, Rejection};

/// How many requests may wait for their answers.
const MAX_WAITING: usize = 1 << 16;

/// The stream. It is dropped, and by that reset, when an answer has broken the rules, or a message couldn't be sent.
pub struct Conversation {
    messages: Arc<Messages>,
    peer: PeerId,
    protocol: &'static str,
    writer: tokio::sync::Mutex<Option<WriteHalf<Stream>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Message>>,
    ended: Option<String>,
}

/// A place among those that wait, given up when it is dropped.
struct Place<'a> {
    conversation: &'a Conversation,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.conversation.state().waiting.remove(&self.id);
    }
}

impl Conversation {
    /// Takes a new stream to a peer.
    pub fn start(
        messages: Arc<Messages>,
        stream: Stream,
        peer: PeerId,
        protocol: &'static str,
    ) -> Arc<Self> {
        let (reader, writer) = stream.split();
        let conversation = Arc::new(Self {
            messages,
            peer,
            protocol,
            writer: Some(writer).into(),
            state: Mutex::default(),
        });
        tokio::spawn(conversation.clone().read(reader));
        conversation
    }

    /// Whether the stream is there.
    pub fn is_alive(&self) -> bool {
        self.state().ended.is_none()
    }

    /// Sends what nobody answers.
    pub async fn send(self: &Arc<Self>, of_type: u32, payload: Vec<u8>) -> Result<(), String> {
        let message = self.messages.compose(self.to(), ONE_WAY, of_type, payload);
        self.write(message).await
    }

    /// Asks, and waits for the answer. The error starts with "remote: " if the peer's handler has failed.
    pub async fn request(
        self: &Arc<Self>,
        of_type: u32,
        payload: Vec<u8>,
    ) -> Result<Message, String> {
        let mut message = self.messages.compose(self.to(), REQUEST, of_type, payload);
        let (answer, answered) = oneshot::channel();
        message.request_id = self.place(answer)?;
        let _place = Place {
            conversation: self,
            id: message.request_id,
        };
        self.write(message).await?;
        match answered.await {
            Ok(answer) => remote_error(answer),
            Err(_) => Err(self.state().ended.clone().unwrap_or_default()),
        }
    }

    fn place(&self, answer: oneshot::Sender<Message>) -> Result<u64, String> {
        let mut state = self.state();
        if let Some(ended) = &state.ended {
            return Err(ended.clone());
        }
        if state.waiting.len() >= MAX_WAITING {
            return Err("too many requests in flight".into());
        }
        state.last_id += 1;
        let id = state.last_id;
        state.waiting.insert(id, answer);
        Ok(id)
    }

    /// Sends in a task of its own: whoever stops waiting doesn't leave half a frame behind.
    async fn write(self: &Arc<Self>, message: Message) -> Result<(), String> {
        let conversation = self.clone();
        let sending = tokio::spawn(async move {
            let frame = conversation.messages.seal(&message)?;
            let mut writer = conversation.writer.lock().await;
            let Some(stream) = writer.as_mut() else {
                return Err("the stream has ended".into());
            };
            let sent = send(stream, &frame).await;
            if let Err(error) = &sent {
                *writer = None;
                conversation.end(error.clone());
            }
            sent
        });
        sending.await.map_err(|error| error.to_string())?
    }

    async fn read(self: Arc<Self>, reader: ReadHalf<Stream>) {
        let mut reader = BufReader::new(reader);
        let ended = loop {
            let taken = match self.messages.receive(&mut reader, self.to()).await {
                Ok(answer) => self.take(answer),
                Err(ended) => break ended,
            };
            if let Err(rejection) = taken {
                break Ended::Rejected(rejection);
            }
        };
        self.messages.tell_end(self.to(), &ended);
        self.end(ended.to_string());
        *self.writer.lock().await = None;
    }

    fn take(&self, answer: Message) -> Result<(), Rejection> {
        if answer.kind != RESPONSE {
            let text = format!(
                "expected answers on our own stream, got kind {}",
                answer.kind
            );
            return Err(Rejection::new(Reason::Kind, text));
        }
        if answer.more {
            let text = "expected a whole answer on the shared stream, got a part";
            return Err(Rejection::new(Reason::Malformed, text));
        }
        let id = answer.request_id;
        let waiting = self.state().waiting.remove(&id);
        if waiting.is_none_or(|waiting| waiting.send(answer).is_err()) {
            let text = format!("nobody waits for request {id}");
            self.messages
                .tell(self.to(), &Rejection::new(Reason::Unasked, text));
        }
        Ok(())
    }

    /// Fails all that wait.
    fn end(&self, why: String) {
        let mut state = self.state();
        let text = format!("the stream ended before the answer: {why}");
        state.ended.get_or_insert(text);
        state.waiting.clear();
    }

    fn to(&self) -> To<'static> {
        To {
            peer: self.peer,
            protocol: self.protocol,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }
}

fn remote_error(answer: Message) -> Result<Message, String> {
    if answer.of_type != ERROR_TYPE {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(&answer.payload);
    Err(format!("remote: {text}"))
}

/// Asks on a stream of its own, and gives each part of the answer to `take`.
pub async fn request_parts(
    messages: &Messages,
    stream: Stream,
    to: To<'_>,
    of_type: u32,
    payload: Vec<u8>,
    mut take: impl FnMut(Message) -> Result<(), String>,
) -> Result<(), String> {
    let mut stream = BufReader::new(stream);
    let mut request = messages.compose(to, REQUEST, of_type, payload);
    request.request_id = 1;
    send(&mut stream, &messages.seal(&request)?).await?;
    let mut more = true;
    while more {
        let part = match messages.receive(&mut stream, to).await {
            Ok(part) if part.kind != RESPONSE => {
                let text = format!("expected a part of the answer, got kind {}", part.kind);
                Err(Ended::Rejected(Rejection::new(Reason::Kind, text)))
            }
            Ok(part) if part.request_id != request.request_id => {
                let text = format!(
                    "expected parts of request 1, got one of {}",
                    part.request_id
                );
                Err(Ended::Rejected(Rejection::new(Reason::Malformed, text)))
            }
            received => received,
        };
        let part = part.map_err(|ended| {
            messages.tell_end(to, &ended);
            ended.to_string()
        })?;
        let part = remote_error(part)?;
        more = part.more;
        take(part)?;
    }
    stream.close().await.map_err(|error| error.to_string())
}
