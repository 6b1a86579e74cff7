//! HTTP, as any client would use it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Server, in_time};

/// A status and a body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// The error code; empty if there is none.
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

/// One user's way to a server.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    http: reqwest::Client,
    url: String,
    pub(crate) token: String,
}

impl Api {
    /// Without a token.
    pub(crate) fn anonymous(server: &Server) -> Self {
        Self::at(server.url())
    }

    /// Without a token, of a server that this process runs itself.
    pub(crate) fn at(url: String) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, url, token: String::new() }
    }

    pub(crate) async fn login(server: &Server, user: &str, password: &str) -> Self {
        Self::anonymous(server).logged_in(user, password).await
    }

    /// The same, for this user.
    pub(crate) async fn logged_in(&self, user: &str, password: &str) -> Self {
        let answer = self.post("/v1/api/auth/login", json!({ "user": user, "password": password })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.with_token(answer.body["access_token"].as_str().unwrap())
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.post_bytes(path, body.to_string().into_bytes()).await
    }

    pub(crate) async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Answer {
        let request =
            self.http.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        self.send(request.body(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let request = if self.token.is_empty() { request } else { request.bearer_auth(&self.token) };
        let response = in_time("a request", request.send()).await.unwrap();
        let status = response.status().as_u16();
        let text = in_time("an answer", response.text()).await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, body }
    }

    /// Whatever the answer is.
    pub(crate) async fn try_sql(&self, sql: &str, params: &[Value]) -> Answer {
        self.post("/v1/api/sql", json!({ "sql": sql, "params": params })).await
    }

    /// Whatever the answer is; none where the server went away, and nobody knows whether it was done.
    pub(crate) async fn sql_of_unknown_fate(&self, sql: &str, params: &[Value]) -> Option<Answer> {
        let request = self.http.post(format!("{}/v1/api/sql", self.url)).bearer_auth(&self.token);
        let request = request.json(&json!({ "sql": sql, "params": params }));
        let response = in_time("a request", request.send()).await.ok()?;
        let status = response.status().as_u16();
        let body = in_time("an answer", response.json()).await.ok()?;
        Some(Answer { status, body })
    }

    /// The rows of a query as an Arrow IPC stream.
    pub(crate) async fn arrow(&self, sql: &str) -> Vec<u8> {
        self.try_arrow(sql).await.unwrap_or_else(|answer| panic!("{sql}: {answer:?}"))
    }

    /// The rows of a query as an Arrow IPC stream; any answer but 200 is an error.
    pub(crate) async fn try_arrow(&self, sql: &str) -> Result<Vec<u8>, Answer> {
        let request = self.http.post(format!("{}/v1/api/sql", self.url)).bearer_auth(&self.token);
        let request = request.header("accept", "application/vnd.apache.arrow.stream");
        let response = in_time("a request", request.json(&json!({ "sql": sql })).send()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = in_time("an answer", response.bytes()).await.unwrap().to_vec();
        if status == 200 {
            return Ok(bytes);
        }
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Err(Answer { status, body })
    }

    /// The first result of statements that must succeed.
    pub(crate) async fn sql(&self, sql: &str) -> Value {
        self.sql_with(sql, &[]).await
    }

    pub(crate) async fn sql_with(&self, sql: &str, params: &[Value]) -> Value {
        let answer = self.try_sql(sql, params).await;
        assert_eq!(answer.status, 200, "{sql}: {answer:?}");
        assert_eq!(answer.body["status"], "success", "{sql}: {answer:?}");
        answer.body["results"][0].clone()
    }

    /// The rows of a query that must succeed.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Value> {
        self.sql(sql).await["rows"].as_array().unwrap().clone()
    }

    /// Waits until the newest job of this type is done, and gives its status and result.
    pub(crate) async fn last_job(&self, job_type: &str) -> (String, Value) {
        let jobs = format!(
            "SELECT status, result, finished_at FROM system.jobs WHERE job_type = '{job_type}' ORDER BY created_at DESC LIMIT 1"
        );
        let done = async {
            loop {
                let row = self.rows(&jobs).await.remove(0);
                if !row[2].is_null() {
                    let result = row[1].as_str().map(|text| serde_json::from_str(text).unwrap());
                    break (row[0].as_str().unwrap().to_owned(), result.unwrap_or_default());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time("a job", done).await
    }
}
