# The addresses of deploy/gateways/nginx/gatehouse.conf in compose.yaml, line by line as
# the README beside that file lists them.
s|listen 127\.0\.0\.1:8080;|listen 8080;|
s|server 127\.0\.0\.1:8081;|server 172.30.104.3:8081;|
s|server unix:/run/gatehouse/verifier\.sock max_fails=0;|server 172.30.101.3:9000 max_fails=0;|
# Without "backup" the two verifiers share the checks.
s|server unix:/run/gatehouse/verifier\.sock max_fails=0 backup;|server 172.30.101.4:9000 max_fails=0;|
