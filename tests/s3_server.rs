//! An S3 server over a directory, for the tests of storage locations: a process of its own that checks signatures.
//!
//! `s3_server DIRECTORY ADDRESS ACCESS_KEY SECRET_KEY`; it says its address once it listens. Each directory is a bucket.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for tests: whatever it meets ends it"
)]

use std::io::Write;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, address, access_key, secret_key] = arguments.as_slice() else {
        panic!("s3_server DIRECTORY ADDRESS ACCESS_KEY SECRET_KEY")
    };
    let mut service = S3ServiceBuilder::new(FileSystem::new(directory).unwrap());
    service.set_auth(SimpleAuth::from_single(access_key.as_str(), secret_key.as_str()));
    let service = service.build();
    let listener = TcpListener::bind(address).await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let service = service.clone();
        tokio::spawn(async move {
            // A connection that breaks concerns nobody else.
            let server = Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(socket), service).await);
        });
    }
}
