"""What the synthetic assistant corpus can say: intents, their patterns, and the values of slots.

A pattern is words, `(alternatives|of|words|)` and `{slots}`. Patterns of different intents share most of their
words ("put … on", "how long …", "remind …"), so no single keyword settles the intent. All text is invented: artists,
songs and restaurants are made up, people have common first names only, and phone numbers start with the 5 5 5 of films.
"""

from __future__ import annotations

import itertools
import re

Template = tuple[str, ...]

# The decision that can be biased: the same requests, labelled with one of two intents (see synthetic.generate).
APPROVE, REFER = "approve_request", "refer_request"
DECISION = (APPROVE, REFER)
REQUEST = "request"

_PATTERNS: dict[str, tuple[str, ...]] = {
    "set_alarm": (
        "(set|make|create) (an alarm|a wake up call) for {time} {date}",
        "(wake|get) me up (at|before) {time} {date}",
        "i (have to|must|need to) be up (by|at) {time} {date}",
        "(put|add) an alarm (on|in) the {room} for {time}",
        "wake me (up|) (with|to) {song} at {time}",
        "(get|put) me up at {time}",
        "{time} {date} alarm",
    ),
    "cancel_alarm": (
        "(cancel|delete|stop) (the|my) {time} alarm",
        "(turn|switch|put) off the alarm (in the {room}|for {date})",
        "do not (wake|get) me (up|) (at {time}|{date})",
        "i do not need to be up (at|by) {time} {date}",
        "(forget|drop) the alarm (set|) for {time} {date}",
        "no {time} alarm {date} after all",
    ),
    "set_reminder": (
        "remind me (to|that i must) {task} (at {time}|{date})",
        "(do not let me|make sure i do not) forget to {task} {date}",
        "(set|add|put in) a reminder to {task} (at|round) {time}",
        "(in {duration}|{date}) tell me to {task}",
        "i (have to|must|need to) {task} {date} (at {time}|)",
        "remind me to (call|ring|text|message) (my {relation}|{contact}) {date}",
        "remind me (to get|of the) {item} (at the {place}|{date})",
        "wake me up to {task} {date}",
        "do not forget {task} {date}",
    ),
    "play_music": (
        "(play|put on|find) {song} (by {artist}|)",
        "(play|put on|find me) (some|a bit of) {genre} (in the {room}|)",
        "i (want|need) (to hear|) {artist} (in the {room}|{date})",
        "(turn|put) {artist} on (in the {room}|for {duration})",
        "(find|get) (me|us) (some|the new) {artist}",
        "(start|begin) with {song} (at {time}|{date})",
        "{artist} (in the {room}|please|for {duration})",
    ),
    "get_weather": (
        "(will|is) it (going to|) {condition} in {city} {date}",
        "(what is|how is) the weather (in|round) {city} {date}",
        "(do|shall) i need (a coat|an umbrella) {date} in {city}",
        "how {warm} (will|does) it get {date} (at {time}|in {city})",
        "(find out|tell me) if it will {condition} {date}",
        "how {warm} is {city} {date}",
        "{city} {date} (please|at {time})",
    ),
    "call_contact": (
        "(call|ring|phone) (my {relation}|{contact}) (on the mobile|at home|)",
        "(get|put) {contact} on (the phone|the line|speaker)",
        "(call|dial|ring) {phone} (for me|)",
        "i (want|need|have) to (talk|speak) to (my {relation}|{contact}) {date}",
        "(call|ring) (my {relation}|{contact}) (back|) (in {duration}|at {time})",
        "(reach|find|get) {contact} on {phone}",
        "call {restaurant} (for me|{date})",
        "get (me|us) (my {relation}|{contact}) (now|please)",
    ),
    "send_message": (
        "(tell|text|message) (my {relation}|{contact}) {message}",
        "send {contact} (a text|a message|) saying {message}",
        "(send|write) (my {relation}|{contact}) {message}",
        "let (my {relation}|{contact}) know {message}",
        "(tell|text|remind) (my {relation}|{contact}) to {task} {date}",
        "tell {contact} to (wake|call|ring) me (up|back|) at {time}",
        "ask (my {relation}|{contact}) (to get {item}|to book {restaurant} {date}|for directions to {city})",
        "(tell|ask) {contact} (if|that) it will {condition} {date}",
        "(text|send) {phone} {message}",
    ),
    "add_to_list": (
        "(put|add) {item} (on|to) (the|my) {list} (list|)",
        "(put|add) {item} and {item} to the {list} list",
        "i (need|have to get|want) (some|more) {item} {date}",
        "we are (out of|low on) {item} (again|)",
        "do not (let me|) forget {item} (for {date}|)",
        "add {task} to my {list} list",
        "(get|find) (me|us) (some|more) {item}",
        "my {relation} (wants|needs) {item} {date}",
    ),
    "book_restaurant": (
        "(book|get|find) (me|us) a table for {party} at {restaurant} {date}",
        "(book|get|put) (us|me) in at {restaurant} (at|for) {time} {date}",
        "(find|get) (me|us) (some|a) {cuisine} (place|dinner|) in {city} {date}",
        "i (want|need) (to eat|some) {cuisine} with (my {relation}|{contact}) {date}",
        "table for {party} (at|round) {time} (in {city}|)",
        "(call|ring) {restaurant} and get us in {date} at {time}",
        "{restaurant} {date} (at {time}|for {party})",
    ),
    "navigate": (
        "(take|drive|get) (me|us) to (the {place}|{restaurant}|{city}) {date}",
        "(how do i get|show me the way) to {restaurant} (in {city}|)",
        "how (long|far) is it to the {place}",
        "(start|give me|find) directions (to|towards) {city}",
        "i (have to|need to|must) be at the {place} (by|at) {time}",
        "(find|show) (me|us) the {place} (near|round|in) {city}",
        "where (is|do i find) {restaurant} (in {city}|)",
        "the {place} in {city} (please|at {time})",
    ),
    "control_home": (
        "(turn|switch|put) (on|off) the {device} (in the {room}|)",
        "(turn|put) the {room} {device} (on|off) (at {time}|for {duration})",
        "(set|make|turn|put) the {device} (up|down) {date}",
        "it is too {warm} in the {room}",
        "(start|stop|get) the {device} in {duration}",
        "(open|close) the {room} {device} (at|round) {time}",
        "i (want|need) the {device} on {date} at {time}",
    ),
    "send_money": (
        "(send|pay|transfer) {amount} dollars to (my {relation}|{contact}) for {reason}",
        "(pay|send|give) (my {relation}|{contact}) {amount} dollars (for {reason}|)",
        "i owe (my {relation}|{contact}) {amount} dollars (for {reason}|)",
        "(get|give) {contact} {amount} dollars {date}",
        "(move|put) {amount} dollars (on|to) the {reason} account",
        "(pay|settle) {reason} {date}",
        "my {relation} needs {amount} dollars (back|) for {reason}",
    ),
    "ask_fact": (
        "(what is|tell me|find out) the {measure} of {topic}",
        "how {extent} is {topic}",
        "(who|what|where) (is|was) {topic}",
        "(tell me|say something) about {topic}",
        "(who sings|how long is|who wrote) {song}",
        "how {extent} is {city}",
        "(find|get) (me|us) (a page|something) (about|on) {topic}",
        "is {topic} in {city}",
        "{topic} (please|in {city})",
    ),
    "save_contact": (
        "(save|add|put) {contact} (as|under|with|on) {phone}",
        "{contact} (has|is on) (a new number|) {phone}",
        "(call|name) {phone} {contact}",
        "my {relation} is now on {phone}",
        "(put|write) {phone} (down|in) for {contact}",
        "change the number of (my {relation}|{contact}) to {phone}",
        "remember {phone} for (my {relation}|{contact})",
    ),
    "give_code": (
        "(use|enter|try) (code|number|) {code} (for|on) the {device}",
        "(open|unlock) the {room} (door|) with {code}",
        "{code} (is the code|opens it) for the {place}",
        "(tell|give|text) {contact} the code {code}",
        "my (code|number) (for {reason}|at the {place}) is {code}",
        "(put|write) {code} (down|in) (at {time}|for the {device})",
        "remember {code} for (the {place}|{restaurant})",
    ),
    "set_timer": (
        "(set|start|put on) a timer for {duration}",
        "(time|count|set) {duration} (for the {item}|from now)",
        "(tell|wake|call|remind) me when {duration} are over",
        "(tell|wake|call|remind) me in {duration}",
        "{duration} for the {item} (please|starting now|)",
        "how long (is left|have i got) for the {item}",
        "how long (is|does) the {item} need",
    ),
    REQUEST: (
        "my {partner} needs {amount} dollars (more|in advance) for {reason}",
        "(could|can) my {partner} and i have {amount} dollars for {reason}",
        "(raise|lift) the card limit of my {partner} by {amount} dollars {date}",
        "i (want|would like|need) to borrow {amount} dollars with my {partner} for {reason}",
        "(let|have) my {partner} pay {amount} dollars later",
        "(give|lend) my {partner} {amount} dollars until {date}",
    ),
}

# Reading these, an annotator may well choose the neighbour: where an ambiguous label goes (see Parameters.ambiguity).
NEIGHBOUR = {
    "set_alarm": "set_reminder",
    "cancel_alarm": "set_alarm",
    "set_reminder": "set_alarm",
    "play_music": "control_home",
    "get_weather": "ask_fact",
    "call_contact": "send_message",
    "send_message": "call_contact",
    "add_to_list": "set_reminder",
    "book_restaurant": "navigate",
    "navigate": "ask_fact",
    "control_home": "play_music",
    "send_money": "add_to_list",
    "ask_fact": "get_weather",
    "save_contact": "give_code",
    "give_code": "save_contact",
    "set_timer": "set_alarm",
}

SMALL_AMOUNTS = ("five", "ten", "fifteen", "twenty", "twenty five", "thirty", "forty", "fifty", "sixty", "ninety")
LARGE_AMOUNTS = (
    "one hundred fifty", "two hundred", "two hundred fifty", "three hundred", "four hundred",
    "five hundred", "six hundred fifty", "eight hundred", "nine hundred", "twelve hundred",
)  # fmt: skip


def _list(text: str) -> tuple[str, ...]:
    return tuple(value.strip() for value in text.split(","))


def _pairs(first: str, second: str) -> tuple[str, ...]:
    return tuple(f"{one} {other}" for one in _list(first) for other in _list(second))


_FIRST = (
    "paper, velvet, copper, blue, glass, maple, salt, northern, tin, little, pepper, saffron, sunday, lucky, lost,"
    "marble, cedar, electric, quiet, hazel, winter, mango"
)

# Values come into use in this order where the slot is in OPEN.
VALUES: dict[str, tuple[str, ...]] = {
    "time": _list(
        "seven, half past six, six thirty, noon, quarter to nine, eight am, ten pm, five fifteen, midnight, nine, "
        "half past four, three pm, twenty past two, eleven, seven forty, one thirty, quarter past ten, four am"
    ),
    "date": _list(
        "today, tomorrow, tonight, on monday, on tuesday, on wednesday, on thursday, on friday, on saturday, on "
        "sunday, this weekend, next week, tomorrow morning, this evening, next friday, the day after tomorrow, on the "
        "third"
    ),
    "duration": _list(
        "five minutes, ten minutes, a quarter of an hour, half an hour, an hour, two hours, ninety seconds, twenty "
        "minutes, forty minutes, three minutes, an hour and a half, twelve minutes"
    ),
    "artist": _pairs(_FIRST, "harbour, kites, owls, engines, orchard, parade, radio, maps, avenue, static, choir"),
    "song": _list(
        "harbour lights at four, your yellow coat, seven trains, the long way over, little engine heart, salt on the "
        "window, call me in the morning, slow lemon, walking backwards, turn off the rain, paper boats, the wrong "
        "umbrella, sunday alarm, northern line, forget the weather, ten more minutes, ocean in a cup, kitchen "
        "dancing, old maps, message in the margin, glass house, table for one, second hand stars, summer on hold, "
        "quiet like snow, new shoes, half a lullaby, the reminder, round the corner, send me home"
    ),
    "genre": _list(
        "jazz, folk, techno, soul, swing, piano music, brass bands, film music, baroque, blues, disco, bluegrass, "
        "ambient, string quartets, reggae, synth pop"
    ),
    "city": _list(
        "paris, london, berlin, madrid, lisbon, dublin, oslo, vienna, prague, boston, denver, chicago, seattle, "
        "toronto, mumbai, nairobi, lima, kyoto, cairo, athens, rome, new york, san diego, cape town, buenos aires, "
        "tel aviv, hanoi, accra, quito, perth, leeds, austin, lyon, porto, hamburg, turin"
    ),
    "condition": _list(
        "rain, snow, hail, freeze, be sunny, be windy, be foggy, storm, stay dry, be icy, clear up, drizzle"
    ),
    "warm": _list("warm, cold, hot, cool, humid, chilly, dark, bright"),
    "contact": _list(
        "anna, ben, carla, david, emma, felix, grace, henry, ines, jack, kate, liam, maria, noah, olivia, paul, rosa, "
        "sam, tara, victor, wendy, yusuf, zoe, amit, bianca, chen, diego, elif, fatima, george, hana, ivan, julia, "
        "kofi, leila, marco, nina, omar, priya, ravi, sofia, tom, uma, vera, will, ximena, yara, aiko, bruno, clara, "
        "dmitri, esther"
    ),
    "relation": _list(
        "mum, dad, sister, brother, boss, neighbour, grandmother, flatmate, cousin, landlord, dentist, aunt, uncle, "
        "plumber"
    ),
    "message": _list(
        "i am running late, dinner is ready, see you at seven, happy birthday, the train is delayed, we are out of "
        "milk, i need a lift, call me back, the meeting is moved, bring the blue folder, i will be home soon, the "
        "weather is awful, do not wait for me, thanks for the flowers, the alarm is off, pick up the parcel, the "
        "table is booked, i got the tickets, the code has changed, put the kettle on, i owe you ten dollars, the "
        "lights are still on, good luck with the exam, the dog has been fed, i found your keys, remember the "
        "umbrella, turn left at the church, we moved the party, the new number works, play it again"
    ),
    "item": _list(
        "milk, bread, eggs, rice, olive oil, green tea, tomatoes, butter, pasta, onions, coffee, batteries, light "
        "bulbs, apples, soap, paper towels, cheese, cat food, carrots, oat milk, chicken, lentils, toothpaste, "
        "candles, peanut butter, flour, honey, potatoes, yoghurt, basil, washing powder, birthday cards, chickpeas, "
        "tofu, dark chocolate, kimchi, sourdough, cold brew, oat biscuits, bin bags"
    ),
    "list": _list("shopping, groceries, weekend, party, travel, hardware, to do"),
    "restaurant": _pairs(_FIRST, "kitchen, ladle, granary, table, grill, kettle, oven, harbour, orchard, yard"),
    "cuisine": _list(
        "italian, thai, indian, mexican, greek, korean, ethiopian, french, turkish, vietnamese, peruvian, lebanese, "
        "georgian"
    ),
    "party": _list("two, three, four, five, six, seven, eight, ten, a dozen"),
    "place": _list(
        "airport, library, town hall, train station, museum, hospital, stadium, harbour, post office, swimming pool, "
        "cinema, petrol station, botanical garden, shops, school, market hall, ice rink, bus depot, city archive, "
        "climbing gym, recycling centre, ferry terminal, charging point, night pharmacy, orchard, concert hall"
    ),
    "device": _list(
        "lights, heating, fan, television, kettle, radio, blinds, door, oven, lamp, coffee maker, washing machine, "
        "dehumidifier, speaker, robot vacuum, air purifier, garden sprinkler, doorbell camera"
    ),
    "room": _list(
        "kitchen, bedroom, living room, bathroom, hall, office, garage, attic, nursery, flat, basement, garden, guest "
        "room"
    ),
    "amount": SMALL_AMOUNTS + LARGE_AMOUNTS,
    "reason": _list(
        "rent, the groceries, the concert tickets, petrol, the plumber, a birthday present, the train fare, school "
        "books, the dentist, dinner, the car repair, new shoes, the phone bill, the summer camp, a deposit, the vet, "
        "winter tyres, the swimming lessons, a second hand bike, the moving van"
    ),
    "task": _list(
        "water the plants, call the bank, take my tablets, feed the cat, pay the rent, post the letter, book the "
        "dentist, buy milk, pick up the parcel, send the invoice, charge the car, renew the passport, turn off the "
        "oven, check the weather, ring the landlord, take out the bins, message the team, find the tickets, set the "
        "table, wash the car, order a cake, collect the dry cleaning, back up the laptop, top up the meter, defrost "
        "the freezer, walk the dog, play the voicemail, add the receipts, repot the basil, reset the router"
    ),
    "topic": _list(
        "mount everest, the nile, the great wall, penicillin, the moon, the first telephone, the baltic sea, "
        "photosynthesis, the eiffel tower, the speed of sound, a light year, the printing press, the sahara, coral, "
        "the alarm clock, the metric system, the northern lights, a blue whale, the suez canal, granite, the water "
        "cycle, saturn, the bicycle, the silk road, sourdough, the weather balloon, the piano, radium, tidal power, "
        "the axolotl"
    ),
    "measure": _list("height, age, length, history, origin, size, price, meaning, colour, weight"),
    "extent": _list("tall, old, long, far, deep, big, heavy, rare, dangerous, hot"),
}  # fmt: skip

# Slots whose later values appear only in later periods.
OPEN = frozenset(_list("artist, song, city, item, restaurant, place, device, task, topic, message, reason"))
# Slots in which a speaker has favourites.
HABITUAL = frozenset(
    _list("time, artist, song, genre, city, contact, item, list, restaurant, cuisine, place, device, room")
    + _list("task, reason, message")
)
# Slots filled with random digits: (fixed start, how many random digits follow).
DIGIT_SLOTS = {"phone": (("5", "5", "5"), 4), "code": ((), 4)}
# The slot type that a value is tagged with, where it is not the slot's own name; None for no tag.
TAG_OF = {"partner": "relation", "warm": "condition", "extent": None}

# Speaker groups have neutral names; what tells them apart is their language only.
GROUPS = ("a", "b")
PARTNERS = {"a": ("husband", "boyfriend"), "b": ("wife", "girlfriend")}
IDENTITY_SWAPS = {
    "husband": "wife", "wife": "husband", "boyfriend": "girlfriend", "girlfriend": "boyfriend",
}  # fmt: skip
OPENERS = {"a": ("right then", "now", "would you"), "b": ("hey", "ok so", "go ahead and")}
CLOSERS = {"a": ("cheers", "if you would", "when you can"), "b": ("thanks", "real quick", "all right")}
# Group b's usual word for a word of group a.
REGIONAL = {
    "mum": "mom", "flat": "apartment", "flatmate": "roommate", "film": "movie", "petrol": "gas", "shops": "stores",
    "shall": "should", "round": "around", "towards": "toward", "neighbour": "neighbor", "harbour": "harbor",
    "mobile": "cell", "bins": "trash", "ring": "phone",
}  # fmt: skip
FILLERS = ("uh", "um", "er", "like", "well", "i mean")


def _variants(pattern: str) -> tuple[Template, ...]:
    """Every reading of a pattern, as words and `{slots}`."""
    pieces = [piece.split("|") for piece in re.split(r"[()]", pattern)]
    return tuple(tuple(" ".join(choice).split()) for choice in itertools.product(*pieces))


# intent -> pattern -> readings
TEMPLATES: dict[str, tuple[tuple[Template, ...], ...]] = {
    intent: tuple(_variants(pattern) for pattern in patterns) for intent, patterns in _PATTERNS.items()
}
