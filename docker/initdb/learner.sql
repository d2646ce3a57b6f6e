-- Run once by the postgres image, in the database `course`, when its volume is empty: the course's
-- ordinary role, as the private server has it. The password comes from .env.
\getenv password LEARNER_PASSWORD
create role learner login password :'password' in role pg_monitor;
alter database course owner to learner;
