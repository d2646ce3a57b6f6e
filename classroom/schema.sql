-- The departures board: what left New York in January 2013. data/README.md has the units and the
-- quirks; classroom/flights.py runs this file, fills the tables and leaves its fingerprint as the
-- schema's comment, all in one transaction.
--
-- Times are `timestamp`, New York's clock as the board on the wall shows it: every flight leaves
-- there, and a report by hour must not depend on the time zone of whoever asks.
-- For the instant, write: sched_dep at time zone 'America/New_York'.

create schema if not exists board;

create table board.airlines (
    carrier text primary key,           -- the airline's code: B6
    name    text not null
);

create table board.airports (
    faa     text primary key,           -- the airport's code: JFK
    name    text not null,
    lat     double precision,           -- degrees north
    lon     double precision,           -- degrees east
    alt     smallint,                   -- feet
    tzone   text not null
);

create table board.planes (
    tailnum text primary key,           -- what is painted on the tail: N14228
    year    smallint,
    type    text not null,
    manufacturer text not null,
    model   text not null,
    engines smallint not null,
    seats   smallint not null,
    engine  text not null
);

create table board.weather (
    origin  text not null,
    hour    timestamp not null,         -- when it begins
    temp    real not null,              -- degrees Fahrenheit
    dewp    real not null,              -- degrees Fahrenheit
    humid   real not null,              -- percent
    wind_dir   smallint,                -- degrees
    wind_speed real not null,           -- miles per hour
    wind_gust  real,                    -- miles per hour
    precip   real not null,             -- inches
    pressure real,                      -- millibars
    visib    real not null,             -- miles
    primary key (origin, hour)
);

create table board.flights (
    id        integer primary key,      -- 1, 2, … by scheduled departure: what LOOKUP asks for
    sched_dep timestamp not null,
    origin    text not null,
    dest      text not null,
    carrier   text not null,
    number    smallint not null,
    tailnum   text,                     -- no foreign key: one plane in six is not in board.planes
    dep_delay smallint,                 -- minutes, negative is early; null: cancelled
    arr_delay smallint,                 -- minutes; null: cancelled, or did not arrive as planned
    air_time  smallint,                 -- minutes
    distance  smallint not null,        -- miles
    unique (origin, sched_dep, carrier, number)  -- what makes a flight, and "what leaves JFK next?"
);

-- The hot row: whoever boards anywhere is counted in one of three rows.
create table board.boarding (
    origin     text primary key,
    passengers bigint not null default 0
);

-- The rows come in here.

-- Only now: checking all rows at once takes half the time of checking each as it comes.
alter table board.weather
    add foreign key (origin) references board.airports;
alter table board.flights
    add foreign key (origin) references board.airports,
    add foreign key (dest) references board.airports,
    add foreign key (carrier) references board.airlines;
alter table board.boarding
    add foreign key (origin) references board.airports;

insert into board.boarding (origin) select distinct origin from board.flights;
