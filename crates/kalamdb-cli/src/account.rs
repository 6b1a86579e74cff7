//! Which server, and who asks it: the options of commands that speak HTTP, and requests of whoever they name.
//!
//! A token that has expired is renewed once per request. What statements mean is for the commands.

use crate::client::{Client, ClientError, SqlAnswer, Statement, Token};

/// The options.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AccountArgs {
    /// Address of the server: http://host:port, https://host:port or host:port
    #[arg(long, env = "KALAMDB_URL", default_value = "http://127.0.0.1:2900", value_parser = server_url)]
    pub(crate) url: String,
    /// Who to log in as
    #[arg(long, short, env = "KALAMDB_USER", default_value = "root")]
    pub(crate) user: String,
    /// The password; other users of this machine can see it, so rather use --password-env or the variable `KALAMDB_PASSWORD`
    #[arg(long, conflicts_with = "password_env")]
    password: Option<String>,
    /// The environment variable that holds the password
    #[arg(long, value_name = "VARIABLE")]
    password_env: Option<String>,
}

impl AccountArgs {
    /// The password: as given, of the environment, or asked for where there is a terminal.
    pub(crate) fn password(&self) -> anyhow::Result<String> {
        crate::sql::password(&self.user, self.password.as_deref(), self.password_env.as_deref())
    }
}

/// The URL of a server, as it is or without `http://` before it.
pub(crate) fn server_url(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_http = |scheme: &str| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let url = match text.split_once("://") {
        Some((scheme, _)) if is_http(scheme) => text.to_owned(),
        Some((scheme, _)) => {
            return Err(format!("{scheme}:// is not spoken here: a server has http:// or https://"));
        }
        None if text.split_once(':').is_some_and(|(scheme, _)| is_http(scheme)) => {
            return Err("behind the scheme stands ://, such as http://127.0.0.1:2900".to_owned());
        }
        None => format!("http://{text}"),
    };
    match reqwest::Url::parse(&url) {
        Ok(parsed) if parsed.has_host() => Ok(url),
        Ok(_) => Err("there is no host in it".to_owned()),
        Err(error) => Err(format!("{error}; such as http://127.0.0.1:2900")),
    }
}

/// Somebody who is logged in.
pub(crate) struct Account {
    client: Client,
    user: String,
    password: String,
    token: Token,
}

impl Account {
    /// Logs in.
    pub(crate) async fn log_in(args: &AccountArgs, password: String) -> Result<Self, ClientError> {
        let client = Client::new(&args.url, None)?;
        let token = client.login(&args.user, &password).await?;
        Ok(Self { client, user: args.user.clone(), password, token })
    }

    /// Runs a statement.
    pub(crate) async fn sql(&mut self, statement: Statement<'_>) -> Result<SqlAnswer, ClientError> {
        match self.client.sql(&self.token, statement).await {
            Err(error) if is_expired(&error) => {
                self.renew().await?;
                self.client.sql(&self.token, statement).await
            }
            other => other,
        }
    }

    /// The rows of a query as an Arrow IPC stream.
    pub(crate) async fn arrow(&mut self, statement: Statement<'_>) -> Result<Vec<u8>, ClientError> {
        match self.client.arrow(&self.token, statement).await {
            Err(error) if is_expired(&error) => {
                self.renew().await?;
                self.client.arrow(&self.token, statement).await
            }
            other => other,
        }
    }

    async fn renew(&mut self) -> Result<(), ClientError> {
        self.token = self.client.login(&self.user, &self.password).await?;
        Ok(())
    }
}

fn is_expired(error: &ClientError) -> bool {
    error.code() == Some("TOKEN_EXPIRED")
}

#[cfg(test)]
mod tests {
    use super::server_url;

    #[test]
    fn a_server_may_be_named_without_a_scheme() {
        let url = |text: &str| server_url(text).ok();
        for (text, expected) in [
            ("localhost:2971", "http://localhost:2971"),
            ("db.example", "http://db.example"),
            ("[::1]:2900", "http://[::1]:2900"),
            (" https://db.example/kalam ", "https://db.example/kalam"),
            ("http://127.0.0.1:2900/", "http://127.0.0.1:2900/"),
        ] {
            assert_eq!(url(text).as_deref(), Some(expected));
        }
        assert!(server_url("postgres://localhost:2900").unwrap_err().contains("postgres://"));
        for wrong in
            ["", "http://", "htp://localhost", "ws://localhost:2900", "localhost:port", "http:/localhost"]
        {
            assert_eq!(url(wrong), None, "{wrong}");
        }
    }
}
