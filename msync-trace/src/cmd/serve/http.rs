//! `/metrics`, `/healthz` and `/readyz`, on a thread of its own: it answers also when tracing stalls.

use std::{
    convert::Infallible,
    env, io,
    net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs},
    os::fd::{FromRawFd, RawFd},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use crate::{
    enrich::look_at_clocks,
    output::metrics::{Exposition, Meters},
};

/// So many connections at once; further ones wait in the kernel.
const CONNECTIONS: usize = 16;
/// For a request's head.
const HEAD: Duration = Duration::from_secs(5);
/// For a whole connection: scrapers that keep it open connect again.
const WHOLE: Duration = Duration::from_secs(300);
/// The rings are emptied every few seconds, also when there is nothing in them.
const STALLED: f64 = 30.0;

/// Sockets that are listened on.
pub(super) struct Http {
    listeners: Vec<StdListener>,
}

impl Http {
    /// Listens at `address`, and on the sockets that systemd handed over.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub(super) fn bind(address: Option<&str>) -> anyhow::Result<Self> {
        let mut listeners = handed_over().context("the socket that systemd handed over")?;
        if let Some(address) = address {
            let resolved: Vec<SocketAddr> = address
                .to_socket_addrs()
                .with_context(|| format!("listen: {address} (write it as 127.0.0.1:9599)"))?
                .collect();
            ensure!(!resolved.is_empty(), "listen: {address} is no address");
            let listener = StdListener::bind(&resolved[..])
                .with_context(|| format!("cannot listen at {address}"))?;
            listeners.push(listener);
        }
        Ok(Self { listeners })
    }

    /// Where it can be reached from elsewhere, as a warning.
    pub(super) fn warning(&self) -> Option<String> {
        let open = self.listeners.iter().filter_map(|it| it.local_addr().ok());
        let open = open.filter(|address| !address.ip().is_loopback());
        let open: Vec<_> = open.map(|address| address.to_string()).collect();
        (!open.is_empty()).then(|| {
            format!(
                "warning: metrics can be read by anybody who reaches {}: there is no TLS and no \
                 password",
                open.join(", ")
            )
        })
    }

    /// Answers from now on, until the program ends.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub(super) fn start(self, meters: Meters) -> anyhow::Result<()> {
        if self.listeners.is_empty() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the HTTP server")?;
        let thread = thread::Builder::new().name("http".to_owned());
        thread
            .spawn(move || {
                runtime.block_on(async {
                    for listener in self.listeners {
                        tokio::spawn(accept(listener, meters.clone()));
                    }
                    std::future::pending::<Infallible>().await
                });
            })
            .context("cannot start a thread for the HTTP server")?;
        Ok(())
    }
}

/// systemd.socket(5): descriptors from 3 on, if they are for this process.
fn handed_over() -> io::Result<Vec<StdListener>> {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    (0..count)
        .map(|at| {
            let fd = RawFd::try_from(3 + at).map_err(io::Error::other)?;
            // SAFETY: handed over to us by number; nobody else in this process knows it.
            let listener = unsafe { StdListener::from_raw_fd(fd) };
            // Not for the commands that we run.
            rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
            listener.local_addr()?;
            Ok(listener)
        })
        .collect()
}

async fn accept(listener: StdListener, meters: Meters) {
    let listening = listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener));
    let Ok(listener) = listening else {
        return;
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others have to close theirs first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let meters = meters.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &meters);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever went wrong, went wrong for that client.
            let _ = timeout(WHOLE, connection).await;
            drop(place);
        });
    }
}

type Answer = Response<Full<Bytes>>;

fn answer(request: &Request<Incoming>, meters: &Meters) -> Answer {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = said(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    match request.uri().path() {
        "/metrics" => metrics(request, meters),
        "/healthz" => match look_at_clocks().1.seconds() - meters.last_drain() {
            age if age < STALLED => said(StatusCode::OK, "ok\n"),
            _ => said(StatusCode::SERVICE_UNAVAILABLE, "tracing stalls\n"),
        },
        "/readyz" => match meters.is_ready() {
            true => said(StatusCode::OK, "ready\n"),
            false => said(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        },
        "/" => said(StatusCode::OK, "msync-trace: /metrics /healthz /readyz\n"),
        _ => said(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz, /readyz\n",
        ),
    }
}

fn metrics(request: &Request<Incoming>, meters: &Meters) -> Answer {
    let accepted = request.headers().get(ACCEPT);
    let open = accepted
        .and_then(|accepted| accepted.to_str().ok())
        .is_some_and(|accepted| accepted.contains("application/openmetrics-text"));
    let exposition = match open {
        true => Exposition::OpenMetrics,
        false => Exposition::Prometheus,
    };
    let mut answer = Response::new(Full::from(meters.text(exposition)));
    let media_type = HeaderValue::from_static(exposition.media_type());
    answer.headers_mut().insert(CONTENT_TYPE, media_type);
    answer
}

fn said(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    let media_type = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, media_type);
    answer
}
