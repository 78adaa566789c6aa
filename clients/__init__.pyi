from rtvc.clients.websocket.client import Client as Client
from rtvc.clients.websocket.client import connect as connect
from rtvc.clients.websocket.refusal import Refusal as Refusal
from rtvc.clients.websocket.remote import Remote as Remote
from rtvc.clients.websocket.remote import convert as convert
