# Resolves a name that only an external server knows.
if have nslookup; then
  for server in "" 10.0.2.3 1.1.1.1; do
    # Unquoted: no argument if there is no server.
    if run nslookup example.com $server >/dev/null 2>&1; then breach name "example.com is known to ${server:-the resolver}"; fi
  done
  tried names
elif have getent; then
  if run getent hosts example.com >/dev/null 2>&1; then breach name "example.com is known"; fi
  tried names
else
  cannot names "the image has no program that asks for a name: nslookup or getent"
fi
