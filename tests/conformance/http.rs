//! Over HTTP.

use std::collections::HashMap;

use async_trait::async_trait;
use serde_json::Value;
use sqllogictest::{AsyncDB, DefaultColumnType, default_normalizer};

use super::{Output, Refused, output, password, run, server, whose};
use crate::support::Api;

struct Http {
    anonymous: Api,
    users: HashMap<String, Api>,
}

#[async_trait]
impl AsyncDB for Http {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Output {
        let (user, sql) = whose(sql);
        if !self.users.contains_key(user) {
            let api = self.anonymous.logged_in(user, &password(user)).await;
            self.users.insert(user.to_owned(), api);
        }
        let answer = self.users[user].try_sql(sql, &[]).await;
        if answer.body["status"] != "success" {
            let text = |name: &str| answer.body["error"][name].as_str().unwrap_or_default().to_owned();
            return Err(Refused { code: text("code"), message: text("message") });
        }
        let result = answer.body["results"].as_array().and_then(|results| results.last()).unwrap();
        let rows = result["rows"].as_array().unwrap();
        let rows: Vec<Vec<Value>> = rows.iter().map(|row| row.as_array().unwrap().clone()).collect();
        let columns = result["schema"].as_array().unwrap().len();
        Ok(output(columns, &rows, result["row_count"].as_u64().unwrap()))
    }

    async fn shutdown(&mut self) {}
}

#[tokio::test]
async fn the_files_over_http() {
    let server = server().await;
    let anonymous = Api::anonymous(&server);
    let connection = move || {
        let anonymous = anonymous.clone();
        async move { Ok(Http { anonymous, users: HashMap::new() }) }
    };
    run(connection, default_normalizer).await;
}
