//! Through the published SDK.

use std::collections::HashMap;

use async_trait::async_trait;
use kalam_client::{AuthProvider, KalamLinkClient};
use serde_json::Value;
use sqllogictest::{AsyncDB, DefaultColumnType, default_normalizer};

use super::{Output, Refused, output, password, run, server, whose};
use crate::support::in_time;

struct Sdk {
    url: String,
    users: HashMap<String, KalamLinkClient>,
}

#[async_trait]
impl AsyncDB for Sdk {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Output {
        let (user, sql) = whose(sql);
        let client = self.users.entry(user.to_owned()).or_insert_with(|| {
            let auth = AuthProvider::basic_auth(user.to_owned(), password(user));
            KalamLinkClient::builder().base_url(self.url.clone()).auth(auth).build().unwrap()
        });
        let response = in_time("a statement", client.execute_query(sql, None, None, None)).await;
        let response = response.map_err(|error| refused(&error.to_string()))?;
        if let Some(error) = response.error {
            return Err(Refused { code: error.code, message: error.message });
        }
        let result = response.results.last().unwrap();
        let rows = result.rows.iter().flatten();
        let rows: Vec<Vec<Value>> = rows.map(|row| row.iter().map(|cell| cell.0.clone()).collect()).collect();
        Ok(output(result.schema.len(), &rows, result.row_count as u64))
    }

    async fn shutdown(&mut self) {}
}

/// The SDK makes an error of its own of what a status other than 200 comes with; the code stands in its text.
fn refused(text: &str) -> Refused {
    let is_code = |word: &&str| word.len() > 4 && word.chars().all(|it| it.is_ascii_uppercase() || it == '_');
    let code = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').find(is_code);
    Refused { code: code.unwrap_or_default().to_owned(), message: text.to_owned() }
}

#[tokio::test]
async fn the_files_through_the_sdk() {
    let server = server().await;
    let url = server.url();
    let connection = move || {
        let url = url.clone();
        async move { Ok(Sdk { url, users: HashMap::new() }) }
    };
    run(connection, default_normalizer).await;
}
