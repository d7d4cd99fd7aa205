//! moto in server mode: AWS's HTTPS endpoints, played by an implementation that is not ours.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::Write as _;
use std::process::Stdio;

use pubsub_aws_iot::AwsCredentials;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

pub(crate) const REGION: &str = "eu-west-1";

/// A server of moto, for as long as the test.
pub(crate) struct Moto {
    _process: Child,
    /// Host and port.
    pub(crate) address: String,
}

impl Moto {
    /// One that believes everybody.
    pub(crate) async fn start_or_skip() -> Option<Self> {
        Self::start(None).await
    }

    /// One that verifies the signature and the rights of every call but the first four: of [`start`](Self::start) and
    /// [`user`](Self::user).
    pub(crate) async fn verifying_or_skip() -> Option<Self> {
        Self::start(Some(4)).await
    }

    /// As for mosquitto: left out loudly where it is missing, unless `PUBSUB_REQUIRE_MOTO=1` forbids that.
    async fn start(unverified: Option<u32>) -> Option<Self> {
        let program = std::env::var("PUBSUB_MOTO").unwrap_or_else(|_| "moto_server".into());
        let mut command = Command::new(program);
        // A profile or a region of whoever runs the tests is nothing to moto, which fails where it does not know it.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AWS_") || text.starts_with("MOTO_") {
                command.env_remove(&name);
            }
        }
        if let Some(calls) = unverified {
            command.env("INITIAL_NO_AUTH_ACTION_COUNT", calls.to_string());
        }
        let started = command
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut process) = started else {
            assert!(
                std::env::var("PUBSUB_REQUIRE_MOTO").as_deref() != Ok("1"),
                "moto_server is missing: `pip install moto[server]`, or name it in PUBSUB_MOTO"
            );
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: needs moto; `pip install moto[server]`, or name moto_server in PUBSUB_MOTO"
            );
            return None;
        };
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("moto ended");
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address.trim().to_owned();
            }
        };
        // It stops when nobody reads what it says.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let moto = Self {
            _process: process,
            address,
        };
        // It loads each service when it is first asked for, which from a cold disk takes longer than a call may.
        moto.iot("GET /endpoint", "").await;
        Some(moto)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A call whose signature nobody looks at: moto reads in it which service is meant.
    async fn call(
        &self,
        service: &str,
        request: &str,
        content_type: &str,
        headers: &str,
        body: &str,
    ) -> String {
        let mut socket = TcpStream::connect(&self.address).await.unwrap();
        let request = format!(
            "{request} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: {content_type}\r\n{headers}\
             authorization: AWS4-HMAC-SHA256 Credential=x/20250101/{REGION}/{service}/aws4_request, \
             SignedHeaders=host, Signature=x\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    async fn iam(&self, body: &str) -> String {
        let form = "application/x-www-form-urlencoded";
        self.call("iam", "POST /", form, "", body).await
    }

    /// A user who may do everything.
    pub(crate) async fn user(&self) -> AwsCredentials {
        self.iam("Action=CreateUser&UserName=u&Version=2010-05-08")
            .await;
        let policy = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C\
                      %22Action%22%3A%22*%22%2C%22Resource%22%3A%22*%22%7D%5D%7D";
        self.iam(&format!(
            "Action=PutUserPolicy&UserName=u&PolicyName=p&PolicyDocument={policy}&Version=2010-05-08"
        ))
        .await;
        let key = self
            .iam("Action=CreateAccessKey&UserName=u&Version=2010-05-08")
            .await;
        let field = |name: &str| {
            let (_, rest) = key.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        AwsCredentials::new(field("AccessKeyId"), field("SecretAccessKey"))
    }

    async fn cognito(&self, action: &str, body: &str) -> Value {
        let answer = self
            .call(
                "cognito-identity",
                "POST /",
                "application/x-amz-json-1.1",
                &format!("x-amz-target: AWSCognitoIdentityService.{action}\r\n"),
                body,
            )
            .await;
        serde_json::from_str(&answer).unwrap()
    }

    /// A new identity pool, by its id.
    pub(crate) async fn identity_pool(&self) -> String {
        let pool = r#"{"IdentityPoolName":"p","AllowUnauthenticatedIdentities":true}"#;
        let made = self.cognito("CreateIdentityPool", pool).await;
        made["IdentityPoolId"].as_str().unwrap().to_owned()
    }

    /// A new identity of a new pool.
    pub(crate) async fn identity(&self) -> String {
        let pool = format!(r#"{{"IdentityPoolId":"{}"}}"#, self.identity_pool().await);
        let made = self.cognito("GetId", &pool).await;
        made["IdentityId"].as_str().unwrap().to_owned()
    }

    /// A call of the IoT control plane by somebody else, and what came of it.
    pub(crate) async fn iot(&self, request: &str, body: &str) -> Value {
        let answer = self
            .call("iot", request, "application/json", "", body)
            .await;
        serde_json::from_str(&answer).unwrap_or_default()
    }
}
