"""Single sign-on: logging in with an account at an OpenID Connect provider."""
